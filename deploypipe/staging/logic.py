"""`and`, `or`, chained comparisons and `in`, whose operands Python evaluates only as far as it must."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deploypipe.staging.branches import ifexp
from deploypipe.staging.context import current
from deploypipe.staging.recorder import dry_run
from deploypipe.staging.truth import bool_tensor, compared, is_static, not_, truth

UNSAFE = (
    "select", "index", "gather", "embedding", "item", "narrow", "slice", "take", "cond", "while_loop", "div", "mod",
    "remainder", "linalg", ".min", ".max", "argm", "amin", "amax", "median", "kthvalue", "topk", "_local_scalar_dense",
)  # fmt: skip
"""Operations that can fail, or read out of bounds, when evaluated although Python would not have got there."""


def and_(*operands: Callable[[], Any]) -> Any:
    parts: dict[int, Any] = {}

    def noting(position: int, operand: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            parts[position] = operand()
            return parts[position]

        return run

    result = _lazy([noting(i, operand) for i, operand in enumerate(operands)], stop=False)
    current().conjunctions[id(result)] = result, tuple(parts.values())
    return result


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
        return join(bool_tensor(result), bool_tensor(second))
    keep: Callable[[], Any] = (lambda: result) if own and boolean else (lambda: value)
    then, orelse = (keep, rest) if stop else (rest, keep)
    return ifexp(None, result, then, orelse)


def compare_chain(left: Any, *pairs: Any) -> Any:
    """`a < b <= c`, and `in`: pairs of an operator and a deferred operand."""
    symbol, right, rest = pairs[0], pairs[1](), pairs[2:]
    result = contains(right, left, symbol) if symbol in ("in", "not in") else compared(symbol, left, right)
    if not rest:
        return result
    return and_(lambda: result, lambda: compare_chain(right, *rest))


def contains(container: Any, item: Any, symbol: str) -> Any:
    if isinstance(container, Tensor):
        found = (container == item).any()
    elif isinstance(item, (Tensor, torch.SymInt, torch.SymFloat)) and isinstance(container, (list, tuple, set, range)):
        found = or_(*[lambda v=v: item == v for v in container]) if len(container) else False
    else:
        found = item in container
    return not_(found) if symbol == "not in" else found
