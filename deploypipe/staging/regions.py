"""What `torch.cond` and `torch.while_loop` have in common: tracing a block into a graph of its own.

Every block runs twice. The dry run (`recorder`) finds what the block reads from around it, what it changes in place and
what its names hold afterwards; the second run is traced by the higher-order operator, with everything that is read from
outside passed as an operand. Operands are the very objects that the block's closures refer to, so the tracer knows
them; only what is changed in place, and symbolic floats, must be redirected inside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploypipe.staging.context import current
from deploypipe.staging.packing import pack, tensors_of, unpack
from deploypipe.staging.recorder import Recorder
from deploypipe.staging.templates import Template
from deploypipe.staging.undefined import Undefined
from deploypipe.torch_compat.dispatch import storage_id
from deploypipe.torch_compat.symbols import all_symbols, demands_stay_local, no_guards_kept
from deploypipe.torch_compat.tracing import redirect, shape_environment

UNREAD = "has no value here, as nothing reads it"


@dataclass(frozen=True)
class Operands:
    """What a block reads from around it."""

    tensors: list[Tensor]
    ints: list[Any]
    floats: list[tuple[Any, Tensor]]
    """Numbers, with the tensors that carry them."""

    @classmethod
    def of(cls, recorder: Recorder, leaves: Sequence[Tensor]) -> Operands:
        """Of a block whose dry run was recorded, and that passes `leaves` on."""
        for leaf in leaves:
            recorder.reads(leaf)
        return cls(list(recorder.outside.values()), *recorder.numbers())

    @property
    def values(self) -> tuple[Any, ...]:
        return (*self.tensors, *self.ints, *(carrier for _, carrier in self.floats))

    def redirect_floats(self, arguments: Sequence[Any]) -> None:
        """Inside a traced block: its numbers are those in the last of its arguments."""
        for (number, _), argument in zip(self.floats, arguments[len(arguments) - len(self.floats) :], strict=True):
            redirect(number, argument.item())


@contextlib.contextmanager
def inside_region() -> Iterator[None]:
    """While a block is traced into the graph of a branch or loop."""
    context, environment = current(), shape_environment()
    outside, context.symbols_outside = context.symbols_outside, all_symbols(environment)
    context.staged += 1
    try:
        with demands_stay_local(environment):
            yield
    finally:
        context.staged -= 1
        context.symbols_outside = outside


def leaves_of(templates: Sequence[Template], values: Sequence[Any]) -> list[Tensor]:
    """The tensors that carry values."""
    return [t for template, value in zip(templates, values, strict=True) for t in pack(template, value)]


def results_of(
    templates: Sequence[Template], values: Sequence[Any], extra: Sequence[Tensor], avoid: set[int]
) -> tuple[Tensor, ...]:
    """A block's results as tensors that share no memory with its inputs (`avoid`) or with each other."""
    seen = set(avoid)
    out: list[Tensor] = []
    for tensor in [*leaves_of(templates, values), *extra]:
        made = _cloned(tensor) if storage_id(tensor) in seen else _packed(tensor)
        if storage_id(made) in seen:
            made = _cloned(made)
        seen.add(storage_id(made))
        out.append(made)
    return tuple(out)


def _cloned(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _packed(tensor: Tensor) -> Tensor:
    """`tensor.contiguous()`, right for every size, whatever it asks about this one. Where an axis has size 1, its
    stride says nothing, and two sides of a branch must agree in it nevertheless."""
    with no_guards_kept(shape_environment()):
        packed = tensor.contiguous()
        one = any(isinstance(size, int) and size == 1 for size in packed.shape)
        return _cloned(packed) if one and any(isinstance(each, torch.SymInt) for each in packed.stride()) else packed


def placeholders(templates: Sequence[Template]) -> list[Tensor]:
    """Tensors like those that will carry the templates, outside any graph."""
    return [
        torch.empty([unknown_size() if d is None else d for d in t.dims], dtype=t.dtype, device=t.device)
        for template in templates
        for t in tensors_of(template)
    ]


def unknown_size() -> Any:
    """A size that is only known when the program runs."""
    size = torch.empty((), dtype=torch.int64).item()
    torch._check(size >= 0)
    return size


def rebuild(templates: Sequence[Template], tensors: Sequence[Tensor], names: Sequence[str]) -> tuple[Any, ...]:
    rest = list(tensors)
    return tuple(unpack(t, rest, n) for t, n in zip(templates, names, strict=True))


def unread(name: str) -> Undefined:
    return Undefined(name, UNREAD)
