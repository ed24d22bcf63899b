"""What a `for` can run over when its length is not a constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.packing import number_of
from deploypipe.torch_compat.symbols import SYMBOLIC, statically_known_true

Size = Any  # int or SymInt


@dataclass(frozen=True)
class Sequence:
    """`length` items, item `i` being `at(i)`. `fixed`: its items are Python objects, only to be had one by one."""

    length: Size
    at: Callable[[Any], Any]
    fixed: list[Any] | None = None

    def __iter__(self) -> Any:
        raise Unsupported(
            "iterating something of dynamic length", "it happens outside a `for` of the model", "use a for loop"
        )


def is_symbolic(*values: Any) -> bool:
    return any(isinstance(v, (*SYMBOLIC, Tensor)) for v in values)


def as_int(value: Any) -> Any:
    return number_of(value) if isinstance(value, Tensor) else value


def range_(*args: Any) -> Any:
    """`range`, whose bounds may be dynamic; the step must be a constant, as its sign decides the direction."""
    values = [as_int(a) for a in args]
    start, stop, step = (0, values[0], 1) if len(values) == 1 else (*values, 1)[:3]
    if not is_symbolic(start, stop, step):
        return range(start, stop, step)
    if isinstance(step, torch.SymInt):
        return Sequence(_trips(start, stop, step), lambda i: start + i * step)
    length = (stop - start + step - 1) // step if step > 0 else (start - stop - step - 1) // -step
    if not statically_known_true(length >= 0):
        length = torch.sym_max(length, 0)
    return Sequence(length, lambda i: start + i * step)


def _trips(start: Any, stop: Any, step: Any) -> Any:
    """The length of a range whose direction is not known: ceil((stop - start) / step), at least 0."""
    first, last, by = (torch.scalar_tensor(v, dtype=torch.int64) for v in (start, stop, step))
    whole = torch.div(last - first + by - torch.sign(by), by, rounding_mode="floor")
    return torch.clamp(whole, min=0).item()


def row(tensor: Tensor, index: Any) -> Tensor:
    """`tensor[index]` for an index that is known to lie inside."""
    return torch.index_select(tensor, 0, torch.scalar_tensor(index, dtype=torch.int64).reshape(1)).squeeze(0)


def sequence_of(value: Any) -> Sequence | None:
    """A value as a sequence; `None` for a Python iterable, which is run over as it is."""
    if isinstance(value, Sequence):
        return value
    if isinstance(value, GrowingList):
        return Sequence(value.length(), lambda i: value[i])
    if isinstance(value, Tensor):
        if value.dim() == 0:
            raise Unsupported("iterating a 0-dim tensor", "eager refuses it, too", "")
        length = value.shape[0]
        if isinstance(length, int):
            return None
        return Sequence(length, lambda i: row(value, i))
    return None


def with_fixed(value: Any) -> Sequence:
    found = sequence_of(value)
    if found is not None:
        return found
    items = list(value)
    return Sequence(len(items), lambda i: items[i], items)


def enumerate_(iterable: Any, start: Any = 0) -> Any:
    found = sequence_of(iterable)
    if found is None:
        return (
            enumerate(iterable, start) if not is_symbolic(start) else [(start + i, v) for i, v in enumerate(iterable)]
        )
    return Sequence(found.length, lambda i: (start + i, found.at(i)), _pairs(found, start))


def _pairs(found: Sequence, start: Any) -> list[Any] | None:
    return None if found.fixed is None else [(start + i, v) for i, v in enumerate(found.fixed)]


def zip_(*iterables: Any, strict: bool = False) -> Any:
    if not any(sequence_of(i) is not None for i in iterables):
        return zip(*iterables, strict=strict)
    parts = [with_fixed(i) for i in iterables]
    length = parts[0].length
    for part in parts[1:]:
        length = length if statically_known_true(length == part.length) else torch.sym_min(length, part.length)
    fixed = [p for p in parts if p.fixed is not None]
    if not fixed:
        return Sequence(length, lambda i: tuple(p.at(i) for p in parts))
    most = min(len(p.fixed or []) for p in fixed)
    return Sequence(length, lambda i: tuple(p.at(i) for p in parts), [None] * most)


def reversed_(value: Any) -> Any:
    found = sequence_of(value)
    if found is None:
        return reversed(value)
    if found.fixed is not None:
        raise Unsupported("reversed()", "over a mix of constants and a dynamic length", "reverse each part on its own")
    return Sequence(found.length, lambda i: found.at(found.length - 1 - i))
