"""Subscripts whose index or bounds may depend on data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.branches import ifexp
from deploypipe.staging.calls import callee
from deploypipe.staging.context import current
from deploypipe.staging.packing import number_of
from deploypipe.torch_compat.symbols import constant_of, depends_on_data, statically_known_true


def getitem(value: Any, index: Any) -> Any:
    """`value[index]`."""
    if not current().capturing:
        return value[index]
    if isinstance(value, Tensor):
        return _windows(value, index)
    if isinstance(index, (torch.SymInt, Tensor)) and isinstance(value, (list, tuple, nn.ModuleList, nn.Sequential)):
        return _choose(value, index)
    if isinstance(index, (torch.SymInt, Tensor)) and isinstance(value, (dict, nn.ModuleDict)):
        raise Unsupported("a dictionary lookup", "the key depends on data", "use if/elif over the keys")
    return value[index]


def _windows(value: Tensor, index: Any) -> Tensor:
    """A subscript whose slices may have dynamic bounds; `x[t : t + 3]` has three rows, wherever it starts."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for axis, part in enumerate(parts):
        if part is None or part is Ellipsis or isinstance(part, (Tensor, bool)):
            break  # from here on, positions in the subscript are not axes
        if isinstance(part, slice) and part.step is None and isinstance(part.start, torch.SymInt):
            width = 0 if part.stop is None or isinstance(part.stop, Tensor) else part.stop - part.start
            number = constant_of(width)
            if number is not None and number > 0 and statically_known_true(part.start >= 0):
                at = torch.arange(number) + part.start
                value = torch.index_select(value, axis, at)
                parts[axis] = slice(None)
        elif (
            isinstance(part, slice) and part.step is None and part.stop is None and _last_of_unknown(value, axis, part)
        ):
            size = value.shape[axis]
            torch._check(size + part.start >= 0)
            value = value.narrow(axis, size + part.start, -part.start)
            parts[axis] = slice(None)
    return value[tensor_index(tuple(parts))]


def _last_of_unknown(value: Tensor, axis: int, part: slice) -> bool:
    """Whether `x[-3:]` is asked of a length that is only known when the program runs. It must be 3 at least there, or
    nothing could be said of the result's."""
    plain = part.step is None and part.stop is None and isinstance(part.start, int) and axis < value.dim()
    size = value.shape[axis] if plain and part.start < 0 else 0
    return isinstance(size, torch.SymInt) and depends_on_data(size)


def tensor_index(index: Any) -> Any:
    """A tensor's subscript with every symbolic number as a 0-dim tensor, which means the same in every format."""
    if isinstance(index, tuple):
        return tuple(tensor_index(i) for i in index)
    if isinstance(index, torch.SymInt):
        return torch.scalar_tensor(index, dtype=torch.int64)
    if isinstance(index, slice) and any(isinstance(b, Tensor) for b in (index.start, index.stop, index.step)):
        return slice(
            *[
                number_of(b.to(torch.int64)) if isinstance(b, Tensor) else b
                for b in (index.start, index.stop, index.step)
            ]
        )
    return index


def _choose(items: Any, index: Any) -> Any:
    """An item of a constant sequence by a dynamic index: tensors and numbers are stacked, modules become a switch."""
    number = number_of(index) if isinstance(index, Tensor) else index
    entries = list(items)
    if all(isinstance(e, Tensor) for e in entries):
        return torch.stack(entries)[torch.scalar_tensor(number, dtype=torch.int64)]
    if (
        all(isinstance(e, (int, float)) and not isinstance(e, bool) for e in entries)
        and len({type(e) for e in entries}) == 1
    ):
        table = torch.tensor(entries, dtype=torch.float64 if isinstance(entries[0], float) else torch.int64)
        return table[torch.scalar_tensor(number, dtype=torch.int64)].item()
    if all(callable(e) for e in entries):
        return Switch(entries, number)
    raise Unsupported("an index that depends on data", "the sequence holds neither tensors nor modules", "use if/elif")


class Switch:
    """One of several callables, by a number that depends on data."""

    def __init__(self, entries: list[Any], index: Any) -> None:
        self.entries, self.index = entries, index

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        def choose(position: int) -> Any:
            if position == len(self.entries) - 1:
                return callee(self.entries[position])(*args, **kwargs)
            here = self.index == position
            if position - len(self.entries) < 0:
                wrapped = self.index == position - len(self.entries)
                here = torch.sym_or(here, wrapped) if hasattr(torch, "sym_or") else here
            return ifexp(
                None, here, lambda: callee(self.entries[position])(*args, **kwargs), lambda: choose(position + 1)
            )

        return choose(0)
