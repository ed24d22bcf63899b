"""Truth values: which are known now, and how those that are not combine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sympy import Rel  # type: ignore[import-untyped]
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from deploypipe.compiler.passes.expressions import COMPARE
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import current
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.packing import number_tensor

# Operations that can fail, or read out of bounds, when evaluated although Python would not have got there.
UNSAFE = (
    "select", "index", "gather", "embedding", "item", "narrow", "slice", "take", "cond", "while_loop", "div", "mod",
    "remainder", "linalg", ".min", ".max", "argm", "amin", "amax", "median", "kthvalue", "topk", "_local_scalar_dense",
)  # fmt: skip


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
        return compare("!=", value, 0) if isinstance(value, torch.SymInt) else known(value != 0)
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
    size = _size_against_zero_or_one(value)
    return decided if size is None else size


def _size_against_zero_or_one(value: Any) -> Any:
    """Torch holds every axis to be at least 1, or even 2, so such a comparison is asked of the real size instead."""
    if not isinstance(value, torch.SymBool) or not current().capturing:
        return None
    expr = value.node.expr
    if not (isinstance(expr, Rel) and expr.lhs.is_Symbol and expr.rhs.is_Integer and 0 <= int(expr.rhs) <= 2):
        return None
    shape_env = value.node.shape_env
    if shape_env is None or not str(expr.lhs).startswith("s"):
        return None
    size = shape_env.create_symintnode(expr.lhs, hint=None)
    return COMPARE[expr.rel_op](number_tensor(size, torch.int64), int(expr.rhs))


def compare(symbol: str, left: Any, right: Any) -> Any:
    """A comparison. Torch holds every axis to be at least 1, so `x.shape[0] == 0` must be asked of the real size."""
    result = COMPARE[symbol](left, right)
    sizes = [v for v in (left, right) if isinstance(v, torch.SymInt)]
    decided = isinstance(result, (bool, torch.SymBool)) and isinstance(known(result), bool)
    constant = isinstance(left, int) or isinstance(right, int)
    if decided and constant and len(sizes) == 1 and sizes[0].node.expr.free_symbols:
        first, second = (number_tensor(v, torch.int64) if v is sizes[0] else v for v in (left, right))
        return COMPARE[symbol](first, second)
    return result


def as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else number_tensor(value, torch.bool)


def is_static(value: Any) -> bool:
    return isinstance(value, bool)


def not_(value: Any) -> Any:
    result = truth(value)
    if is_static(result):
        return not result
    return torch.sym_not(result) if isinstance(result, torch.SymBool) else torch.logical_not(result)


def and_(*operands: Callable[[], Any]) -> Any:
    return _lazy(list(operands), stop=False)


def or_(*operands: Callable[[], Any]) -> Any:
    return _lazy(list(operands), stop=True)


def _lazy(operands: list[Callable[[], Any]], *, stop: bool) -> Any:
    """`and` (stop at a false operand) and `or` (stop at a true one), which return an operand, not a bool."""
    value = operands[0]()
    rest = operands[1:]
    if not rest:
        return value
    result = truth(value)
    if is_static(result):
        return value if result is stop else _lazy(rest, stop=stop)
    return _dynamic(value, result, lambda: _lazy(rest, stop=stop), stop)


def _dynamic(value: Any, result: Any, rest: Callable[[], Any], stop: bool) -> Any:
    from deploypipe.staging.helpers import HELPERS
    from deploypipe.staging.regions import dry_run

    with dry_run() as recorder:
        other = rest()
    boolean = isinstance(other, (bool, torch.SymBool)) or (isinstance(other, Tensor) and other.dtype == torch.bool)
    own = isinstance(value, torch.SymBool) or (isinstance(value, Tensor) and value.dtype == torch.bool)
    operations = [op.replace("linalg_vector_norm", "norm") for op in recorder.operations]  # unlike the other linalg's
    if boolean and own and not any(part in op for op in operations for part in UNSAFE):
        other = rest()
        second = truth(other)
        if is_static(second):
            return result if second is not stop else second
        join = torch.logical_or if stop else torch.logical_and
        return join(as_tensor(result), as_tensor(second))
    keep: Callable[[], Any] = (lambda: result) if own and boolean else (lambda: value)
    then, orelse = (keep, rest) if stop else (rest, keep)
    return HELPERS.ifexp(-1, result, then, orelse)
