"""A module that takes its state as the argument `state`, and returns its outputs and the new state.

State is a tensor that a call of the module leaves other than it found it: a buffer, or a plain attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.contract.call import Call
from deploypipe.eager import reference_copy
from deploypipe.flat_module import flat_call
from deploypipe.torch_compat.around import Around


class WithState(Around):
    """Its state is no buffer any more, and it has none between calls."""

    names: tuple[str, ...]

    def __init__(self, author: nn.Module, names: tuple[str, ...]) -> None:
        author = reference_copy(author)
        for name in names:
            owner, attribute = _place(author, name)
            value = getattr(owner, attribute)
            owner._buffers.pop(attribute, None)
            owner._non_persistent_buffers_set.discard(attribute)
            object.__setattr__(owner, attribute, value)
        super().__init__(author)
        object.__setattr__(self, "names", names)

    def run(self, state: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        places = {name: _place(self.author, name) for name in self.names}
        before = {name: getattr(owner, attribute) for name, (owner, attribute) in places.items()}
        try:
            for name, (owner, attribute) in places.items():
                object.__setattr__(owner, attribute, state[name].clone())
            outputs = self.author(*args, **kwargs)
            return outputs, {name: getattr(owner, attribute) for name, (owner, attribute) in places.items()}
        finally:
            for name, (owner, attribute) in places.items():
                object.__setattr__(owner, attribute, before[name])


def state_of(module: nn.Module, call: Call) -> dict[str, Tensor]:
    """By name, the tensors of a module that this call of it changes, as they are before it."""
    copy = reference_copy(module)
    flat = flat_call(copy, call)
    before = {name: tensor.detach().clone() for name, tensor in _tensors(copy).items()}
    with torch.no_grad():
        flat.module(*(tensor.detach().cpu().clone() for tensor in flat.inputs))
    after = _tensors(copy)
    return {name: tensor for name, tensor in before.items() if name in after and not _same(tensor, after[name])}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every buffer, and every plain attribute that is a tensor, by its dotted name."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, part in module.named_modules()
        for name, value in {**vars(part), **part._buffers}.items()
        if isinstance(value, Tensor)
    }


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return module.get_submodule(path), attribute


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
