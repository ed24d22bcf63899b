"""How much longer an iteration of a loop makes a tensor, and how often a loop runs at most, as far as its code says.

Both are read off what one dry run of the body makes of symbols. Where a loop runs more often than its code seems to
say, the artifact stops with an error, because there is no room: nothing it returns is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploypipe.staging.context import current
from deploypipe.staging.templates import (
    LongerT,
    NumberT,
    Template,
    TensorT,
    TreeT,
    children,
    larger,
    same_constant,
)
from deploypipe.torch_compat.symbols import (
    as_number,
    bound_of,
    constant_of,
    is_axis,
    less_than,
    linear_in,
    sole_symbol,
    statically_known_true,
    symbols_in,
)
from deploypipe.torch_compat.tracing import remembered_number, shape_environment

MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


_bound: ContextVar[int | None] = ContextVar("_bound", default=None)


@contextmanager
def loops_at_most(bound: int | None) -> Iterator[None]:
    """In this block, how often a loop runs at most whose code does not say it."""
    token = _bound.set(bound)
    try:
        yield
    finally:
        _bound.reset(token)


def bound_of_user() -> int | None:
    """How often the loop that is staged may run, since its code does not say it; None where the user did not."""
    bound = _bound.get()
    if bound is not None and (site := current().open_sites[-1]) is not None:
        current().bounded[site] = bound
    return bound


@dataclass(frozen=True)
class Negated:
    """What holds where a condition does not."""

    condition: Any


@dataclass(frozen=True)
class Counter:
    """A number that the loop hands on: its symbol in the body, what it starts with, what an iteration makes of it."""

    symbol: Any
    start: Any
    after: Any


class AsksForNumber(Exception):
    """How often a loop runs depends on the number in this tensor, which must be read before the loop."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor


Alternatives = list[tuple[Any, Any, Any]]
"""A number that a branch gave, and what it is on each side."""


def note_alternatives(template: Template, value: Any, one: Any, other: Any, noted: Alternatives) -> None:
    """Remember what the sizes and numbers that a branch gave are on each of its sides. Those that are alike on both
    sides are one; `noted` are those of this branch."""
    if isinstance(template, TreeT):
        parts = [found[1] for each in (value, one, other) if (found := children(each))]
        if [len(part) for part in parts] == 3 * [len(template.children)]:
            for child, its, a, b in zip(template.children, *parts, strict=True):
                note_alternatives(child, its, a, b, noted)
    elif isinstance(template, NumberT) and template.kind is int:
        _note(value, one, other, noted)
    elif isinstance(template, TensorT) and isinstance(one, Tensor) and isinstance(other, Tensor):
        for size, known, a, b in zip(value.shape, template.dims, one.shape, other.shape, strict=True):
            if known is None:
                _note(size, a, b, noted)


def _note(value: Any, one: Any, other: Any, noted: Alternatives) -> None:
    symbol = sole_symbol(value)
    if symbol is None:
        return
    for twin, its_one, its_other in noted:
        if same_constant(its_one, one) and same_constant(its_other, other):
            torch._check(value == twin)
            break
    noted.append((value, one, other))
    current().alternatives[symbol] = one, other


def _possible(number: Any, known: frozenset[Any]) -> list[Any]:
    """What a number may be: where branches gave it, what they gave, down to `known` symbols."""
    symbol = sole_symbol(number)
    pair = current().alternatives.get(symbol) if symbol is not None and symbol not in known else None
    if pair is None:
        return [number]
    return [each for side in pair for each in _possible(side, known | {symbol})]


def growth_of(before: Any, after: Any, visible: frozenset[Any]) -> Any:
    """By how much a size grows at most in an iteration, in what is known before the loop (`visible`). None where that
    is not known, or where it may shrink."""
    most: Any = 0
    for size in _possible(after, visible):
        by = bound_of(size - before, visible)
        if by is None or not statically_known_true(size >= before):
            return None
        most = larger(most, by)
    return most


def as_known(number: Any, visible: frozenset[Any]) -> Any:
    """A number in what is known before the loop, at most; None where that is not known."""
    if not isinstance(number, torch.SymInt):
        return number
    expression = _as_outside(number.node.expr)
    if expression.free_symbols <= visible:
        return as_number(expression, shape_environment()) if expression.free_symbols else int(expression)
    return bound_of(number, visible)


def not_empty(size: Any) -> bool:
    """Whether a size is at least 1. Of an input's axis that is demanded: attention to nothing is nobody's model."""
    if isinstance(size, int) or not all(map(is_axis, symbols_in(size))):
        return statically_known_true(size >= 1)
    torch._check(size >= 1)
    return True


def counters_of(
    templates: Sequence[Template], before: Sequence[Any], head: Sequence[Any], after: Sequence[Any]
) -> dict[Any, Counter]:
    """By their symbols, the numbers and the lengths that a loop hands from one iteration to the next."""
    found: dict[Any, Counter] = {}
    for template, start, at_head, end in zip(templates, before, head, after, strict=True):
        if isinstance(template, LongerT) and isinstance(start, Tensor) and isinstance(end, Tensor):
            start, at_head, end = (each.shape[template.axis] for each in (start, at_head, end))
        symbol = sole_symbol(at_head)
        if symbol is not None and isinstance(start, int | torch.SymInt) and isinstance(end, int | torch.SymInt):
            found[symbol] = Counter(symbol, start, end)
    return found


def most_iterations(going: Any, counters: Mapping[Any, Counter], flags: Sequence[Any], visible: frozenset[Any]) -> Any:
    """How often a loop runs at most, by one of the comparisons that all must hold for it to go on: of a counter that
    each iteration moves, with a number from before the loop. They are in its condition, or in a branch that leaves the
    loop by setting one of its `flags`, each as an iteration leaves it. None where no comparison says it."""
    # Where a branch of the body ends the loop, the iteration that does it counts as well.
    ended_by = [(_negated(condition), 1) for flag in flags for condition in _going_on(flag)]
    for condition, more in [*((each, 0) for each in _conjuncts(going)), *ended_by]:
        remaining = _remaining(condition, counters, visible)
        for counter in counters.values():
            parts = linear_in(remaining, counter.symbol) if remaining is not None else None
            if parts is None or not parts[1].free_symbols <= visible:
                continue
            now = as_number(counter.symbol, shape_environment())
            moves = [constant_of(after - now) for after in _possible(counter.after, visible)]
            steps = [-int(parts[0]) * move for move in moves if move is not None]
            if len(steps) != len(moves) or min(steps) < 0 or max(steps) == 0:
                continue
            rest: Any = as_number(parts[1], shape_environment()) if parts[1].free_symbols else int(parts[1])
            first = rest + int(parts[0]) * counter.start
            return torch.sym_max((first + max(steps) - 1) // max(steps) if max(steps) > 1 else first, 0) + more
    return None


def _going_on(after: Any) -> Iterator[Any]:
    """The conditions that were false, all of them, where this flag is not set: those of the branches that set it."""
    seen: set[int] = set()
    while id(after) not in seen and (flag := current().flags.get(id(after))):
        seen.add(id(after))
        _, pred, after = flag
        yield current().predicates.get(id(pred), (None, pred))[1]


def _conjuncts(going: Any) -> Iterator[Any]:
    known = current().conjunctions.get(id(going))
    if known is None:
        yield going
        return
    for part in known[1]:
        if part is not going:
            yield from _conjuncts(part)


def _as_outside(expression: Any) -> Any:
    """With the symbols that numbers have outside of the blocks that read them anew."""
    known = current().read_anew
    while expression is not None and (inside := expression.free_symbols & set(known)):
        expression = expression.xreplace({symbol: known[symbol].node.expr for symbol in inside})
    return expression


def _negated(condition: Any) -> Any:
    return torch.sym_not(condition) if isinstance(condition, torch.SymBool) else Negated(condition)


def _remaining(condition: Any, counters: Mapping[Any, Counter], visible: frozenset[Any]) -> Any:
    """An expression that is positive as long as the condition holds."""
    if isinstance(condition, torch.SymBool):
        return _as_outside(less_than(condition))
    negated = isinstance(condition, Negated)
    compared = condition.condition if isinstance(condition, Negated) else condition
    _, symbol, left, right = current().comparisons.get(id(compared), (None, "", None, None))
    symbol = OPPOSITE.get(symbol, "") if negated else symbol
    if symbol not in MIRRORED:
        return None
    if isinstance(left, Tensor):
        left, right, symbol = right, left, MIRRORED[symbol]
    own = symbols_in(left)
    if not isinstance(right, Tensor) or right.dim() or right.is_floating_point() or not own or not own <= set(counters):
        return None
    limit = remembered_number(right)
    if not isinstance(limit, torch.SymInt) or not symbols_in(limit) <= visible:
        raise AsksForNumber(right)
    first, last = (left, limit) if symbol[0] == "<" else (limit, left)
    return (last - first + int(len(symbol) == 2)).node.expr
