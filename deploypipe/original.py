"""The author's own module beside the copy of it that everything is done with.

A copy has objects of its own, but a function is not copied: a hook or a closure that was made with the original goes on
reading and writing there. Then the copy computes something else, or the original changes; the first is refused, and
the second is undone.
"""

import itertools
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from deploypipe.eager import eager_outputs, reference_copy, title_of
from deploypipe.errors import ExportError, UsageError, first_line

PATIENCE = 5.0
"""Seconds for inputs that nobody gave: a loop of the module may have no end on them."""
NEAR = 1e-3
"""Of the largest value. The same kernels compute both, though perhaps on two devices; what is stale is further off."""
_ATOMS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, type, str, bytes, int)


def check_copy(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """ExportError where a copy of `module` returns something else than the module itself, which stays as it was.

    Asked on the example and on other values: the original may have seen the example last, and then what is left of
    that in the copy is right by chance.
    """
    copied = reference_copy(module)
    with untouched(module):
        module.eval()
        for given in (inputs, tuple(map(_otherwise, inputs))):
            try:
                own = _answer(module, given)
            except UsageError:  # whoever needs the answer says so
                return
            try:
                problem = _difference(own, _answer(copied, given))
            except UsageError as cause:
                problem = first_line(cause)
            if problem:
                raise ExportError(
                    f"a copy of {title_of(module)} does not compute what it itself does: {problem}; a hook or a closure"
                    " of it reaches the module that it was made with",
                    "Let hooks use the module that they are given, and write what they keep there.",
                )


def _answer(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    state = next(itertools.chain(module.parameters(), module.buffers()), torch.zeros(()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what it draws is the same in both
        return eager_outputs(module, tuple(tensor.to(state.device) for tensor in inputs), PATIENCE)[0]


def _otherwise(tensor: Tensor) -> Tensor:
    """The same values in another order, so that an index stays one; floating-point ones a little larger as well."""
    turned = tensor.flip(tuple(range(tensor.dim())))
    return turned * 1.25 if tensor.is_floating_point() else turned


def _difference(own: Sequence[Tensor], copied: Sequence[Tensor]) -> str:
    if len(own) != len(copied):
        return f"{len(copied)} outputs instead of {len(own)}"
    for place, (a, b) in enumerate(zip(own, copied, strict=True)):
        if a.shape != b.shape:
            return f"output {place} has shape {list(b.shape)} instead of {list(a.shape)}"
        whole = not (a.is_floating_point() or a.is_complex())
        if whole and a.device != b.device:  # another device may decide a tie otherwise
            continue
        kind = torch.complex128 if a.is_complex() else torch.float64
        wide, other = a.detach().cpu().to(kind), b.detach().cpu().to(kind)
        largest = torch.where(wide.isfinite(), wide.abs(), 0.0).max().item() if wide.numel() else 0.0
        if not torch.allclose(wide, other, rtol=0.0, atol=0.0 if whole else NEAR * largest, equal_nan=True):
            return f"output {place} differs for the same inputs"
    return ""


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Whatever the block does to the attributes and buffers of `module`, and to the lists, dicts, sets and plain
    objects in them, is undone when it ends. Parameters are not looked at: nothing here trains."""
    kept = _Snapshot()
    for part in module.modules():
        kept.take(part)
    try:
        yield
    finally:
        kept.restore()


class _Snapshot:
    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._alive: dict[int, Any] = {}
        """What was seen, by its id, which stays its own as long as it lives."""

    def restore(self) -> None:
        for undo in self._undo:
            undo()

    def take(self, value: Any) -> None:
        if id(value) in self._alive or isinstance(value, (*_ATOMS, nn.Parameter)):
            return
        self._alive[id(value)] = value
        if isinstance(value, Tensor):
            if value.layout == torch.strided and not is_lazy(value) and not value.is_meta:
                self._undo.append(_undo_tensor(value))
        elif isinstance(value, dict):
            self._take_items(value, list(value.values()), dict(value), value.update)
        elif isinstance(value, list | deque):
            self._take_items(value, list(value), list(value), value.extend)
        elif isinstance(value, set):
            self._take_items(value, [], set(value), value.update)
        elif isinstance(value, tuple):
            for item in value:
                self.take(item)
        elif isinstance(value, nn.Module) or (
            hasattr(value, "__dict__") and not type(value).__module__.startswith("torch")
        ):
            self.take(vars(value))

    def _take_items(self, container: Any, inner: list[Any], before: Any, fill: Callable[[Any], Any]) -> None:
        def undo() -> None:
            if not _same_items(container, before):
                container.clear()
                fill(before)

        self._undo.append(undo)
        for item in inner:
            self.take(item)


def _same_items(container: Any, before: Any) -> bool:
    if isinstance(container, dict):
        return list(container) == list(before) and all(container[key] is before[key] for key in before)
    if isinstance(container, set):
        return bool(container == before)
    return len(container) == len(before) and all(a is b for a, b in zip(container, before, strict=True))


def _undo_tensor(tensor: Tensor) -> Callable[[], None]:
    before = tensor.detach().clone()

    def undo() -> None:
        if tensor.shape == before.shape and not torch.equal(tensor, before):
            with torch.no_grad():
                tensor.copy_(before)

    return undo
