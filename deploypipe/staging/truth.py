"""Truth values and comparisons: which are known now, and which depend on the input."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import current
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.packing import number_tensor
from deploypipe.torch_compat.symbols import axis_against_constant, statically_known_true, symbols_in

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "is": operator.is_, "is not": operator.is_not,
}  # fmt: skip


def truth(value: Any) -> Any:
    """`bool(value)`: a Python bool where it is known, else a 0-dim bool tensor or a SymBool."""
    if isinstance(value, Tensor):
        if not current().capturing:
            return bool(value)
        if value.numel() != 1 if isinstance(value.numel(), int) else True:
            raise Unsupported(
                "the truth of a tensor",
                f"it has shape {list(value.shape)}, not one element",
                "reduce it with .any() or .all()",
            )
        flat = value.reshape(()) if value.dim() else value
        return flat if flat.dtype == torch.bool else flat != 0
    if isinstance(value, torch.SymBool):
        return known(value)
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        return compared("!=", value, 0) if isinstance(value, torch.SymInt) else known(value != 0)
    if isinstance(value, GrowingList):
        return known(value.count > 0)
    return bool(value)


def known(value: Any) -> Any:
    """A SymBool as a Python bool if no input can make it otherwise."""
    if isinstance(value, bool):
        return value
    if statically_known_true(value):
        decided = True
    elif statically_known_true(torch.sym_not(value)):
        decided = False
    else:
        return value
    asked = _asked_of_the_real_size(value)
    return decided if asked is None else asked


def _asked_of_the_real_size(value: Any) -> Any:
    """Torch holds every axis to be at least 1, or even 2, so such a comparison is asked of the real size instead."""
    if not isinstance(value, torch.SymBool) or not current().capturing:
        return None
    found = axis_against_constant(value)
    if found is None:
        return None
    axis, symbol, number = found
    return COMPARISONS[symbol](number_tensor(axis, torch.int64), number) if 0 <= number <= 2 else None


def compared(symbol: str, left: Any, right: Any) -> Any:
    """A comparison. Torch holds every axis to be at least 1, so `x.shape[0] == 0` must be asked of the real size."""
    result = COMPARISONS[symbol](left, right)
    sizes = [v for v in (left, right) if isinstance(v, torch.SymInt)]
    decided = isinstance(result, (bool, torch.SymBool)) and isinstance(known(result), bool)
    constant = isinstance(left, int) or isinstance(right, int)
    if decided and constant and len(sizes) == 1 and symbols_in(sizes[0]):
        first, second = (number_tensor(v, torch.int64) if v is sizes[0] else v for v in (left, right))
        return COMPARISONS[symbol](first, second)
    return result


def bool_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else number_tensor(value, torch.bool)


def is_static(value: Any) -> bool:
    return isinstance(value, bool)


def not_(value: Any) -> Any:
    result = truth(value)
    if is_static(result):
        return not result
    if isinstance(result, torch.SymBool):
        return torch.sym_not(result)
    negated = torch.logical_not(result)
    current().negations[id(negated)] = negated, result
    return negated
