"""`while` and `for`: run in Python as long as the condition is known, staged from there on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from deploypipe.compiler.sites import AT_LEAST_ONCE
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging import truth
from deploypipe.staging.context import current, module_stack_kept
from deploypipe.staging.lists import CountingList, GrowingList
from deploypipe.staging.packing import number_of
from deploypipe.staging.regions import Get, NeedsRoom, Put, Trips, fresh, stage_while
from deploypipe.staging.sequences import Sequence, sequence_of

UNROLL_LIMIT = 10_000
SHORT = 3  # iterations that are cheaper unrolled than staged


def while_(
    site: int,
    test: Callable[[], Any],
    body: Callable[[], Any],
    get: Get,
    put: Put,
    names: tuple[str, ...],
    live: tuple[str, ...],
    carried: tuple[str, ...],
) -> None:
    context = current()
    rounds = 0
    while True:
        going = truth.truth(test())
        if not truth.is_static(going):
            break
        if not going:
            context.note(site, "unrolled" if rounds else "static")
            _took(site, rounds)
            return
        body()
        rounds += 1
        if context.capturing and rounds > UNROLL_LIMIT:
            raise Unsupported(
                "a while loop", f"it ran {UNROLL_LIMIT} times without depending on data", "bound the loop"
            )
    context.note(site, "while_loop")
    with context.at(site):
        staged_with_room(lambda: truth.truth(test()), body, get, put, names, live, carried, Trips())


def staged_with_room(
    test: Callable[[], Any],
    body: Callable[[], Any],
    get: Get,
    put: Put,
    names: tuple[str, ...],
    live: tuple[str, ...],
    carried: tuple[str, ...],
    trips: Trips,
) -> None:
    """Stage a loop. If lists grow in it and it runs an unknown number of times, a first loop counts how much."""
    before = tuple(get())
    try:
        with module_stack_kept():
            stage_while(test, body, get, put, names, live, carried, trips)
    except NeedsRoom as need:
        held = {
            n: v.count if isinstance(v, GrowingList) else len(v)
            for n, v in zip(names, before, strict=True)
            if n in need.names
        }
        put(
            tuple(
                CountingList(held[n], _last(v)) if n in held else v for n, v in zip(names, fresh(before), strict=True)
            )
        )
        every = tuple(dict.fromkeys([*live, *need.names]))
        stage_while(test, body, get, put, names, every, carried, Trips(trips.most, trips.exact))
        trips.room = {n: v.count - held[n] for n, v in zip(names, get(), strict=True) if n in need.names}
        for count in trips.room.values():
            torch._check(count >= 0)
        put(fresh(before))
        stage_while(test, body, get, put, names, live, carried, trips)


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, GrowingList) or value else None


def for_(
    site: int,
    iterable: Any,
    going: Callable[[], Any] | None,
    body: Callable[[Any], Any],
    get: Get,
    put: Put,
    names: tuple[str, ...],
    live: tuple[str, ...],
    carried: tuple[str, ...],
) -> None:
    context = current()
    sequence = sequence_of(iterable) if context.capturing else None
    if sequence is not None and sequence.fixed is None and not isinstance(sequence.length, int):
        context.note(site, "while_loop")
        with context.at(site):
            _stage_for(sequence, going, body, get, put, names, live, carried)
        return
    if sequence is not None:
        _bounded(site, sequence, going, body, get, put, names, live, carried)
        return
    rounds = 0
    remaining = iter(iterable)
    items = None
    for item in remaining:
        if going is not None and rounds:
            more = truth.truth(going())
            if not truth.is_static(more):
                items = [item, *remaining]
                break
            if not more:
                break
        body(item)
        rounds += 1
    if items is None:
        context.note(site, "unrolled" if rounds else "static")
        _took(site, rounds)
        return
    assert going is not None
    _rest_of(site, items, isinstance(iterable, range), going, body, get, put, names, live, carried)


def _rest_of(
    site: int,
    items: list[Any],
    numbers: bool,
    going: Callable[[], Any],
    body: Callable[[Any], Any],
    get: Get,
    put: Put,
    names: tuple[str, ...],
    live: tuple[str, ...],
    carried: tuple[str, ...],
) -> None:
    """The iterations of a constant sequence that may be left out because of a `break` that depends on data."""
    context = current()
    context.note(site, AT_LEAST_ONCE)
    if numbers and len(items) > SHORT:
        before = tuple(get())
        step = items[1] - items[0]
        sequence = Sequence(len(items), lambda i: items[0] + i * step)
        try:
            with module_stack_kept(), context.at(site):
                _stage_for(sequence, going, body, get, put, names, live, carried)
            context.note(site, "while_loop")
            return
        except Exception:
            # A body that needs the index as a constant (a module list, a shape) is unrolled instead.
            put(fresh(before))
    context.note(site, "unrolled with cond")
    for item in items:
        _guarded(going(), partial(body, item), get, put, names, tuple(dict.fromkeys([*live, *carried])))


def _bounded(
    site: int,
    sequence: Sequence,
    going: Callable[[], Any] | None,
    body: Callable[[Any], Any],
    get: Get,
    put: Put,
    names: tuple[str, ...],
    live: tuple[str, ...],
    carried: tuple[str, ...],
) -> None:
    """A sequence of dynamic length beside constants (`zip(self.layers, x)`): unrolled to the constants' length."""
    current().note(site, "unrolled with cond")
    for i in range(len(sequence.fixed or [])):
        more: list[Callable[[], Any]] = [partial(_inside, i, sequence.length)]
        if going is not None and i:
            more.insert(0, going)
        wanted = tuple(dict.fromkeys([*live, *carried]))
        _guarded(truth.and_(*more), partial(_body_at, body, sequence, i), get, put, names, wanted)


def _inside(i: int, length: Any) -> Any:
    return truth.known(length > i)


def _body_at(body: Callable[[Any], Any], sequence: Sequence, i: int) -> None:
    body(sequence.at(i))


def _guarded(
    test: Any, block: Callable[[], Any], get: Get, put: Put, names: tuple[str, ...], live: tuple[str, ...]
) -> None:
    from deploypipe.staging.helpers import HELPERS

    HELPERS.if_(-1, test, block, lambda: None, get, put, names, live)


def _stage_for(
    sequence: Sequence,
    going: Callable[[], Any] | None,
    body: Callable[[Any], Any],
    get: Get,
    put: Put,
    names: tuple[str, ...],
    live: tuple[str, ...],
    carried: tuple[str, ...],
) -> None:
    """A loop over an index, which is one more carried variable: a tensor, so that no step converts it and back."""
    index: Any = 0
    limit = sequence.length
    if isinstance(limit, torch.SymInt):
        limit = torch.scalar_tensor(limit, dtype=torch.int64)  # computed once, not in every step

    def get_all() -> tuple[Any, ...]:
        return (*get(), index)

    def put_all(values: tuple[Any, ...]) -> None:
        nonlocal index
        *rest, index = values
        put(tuple(rest))

    def test() -> Any:
        inside = index < limit
        return inside if going is None else truth.and_(lambda: inside, going)

    def step() -> None:
        nonlocal index
        position = number_of(index) if isinstance(index, Tensor) else index
        with not_negative(position):
            body(sequence.at(position))
        index = index + 1

    exact = going is None
    before = tuple(get())
    trips = Trips(sequence.length, exact)
    hidden = "index#"
    every = (*names, hidden)
    wanted, held = (*live, hidden), (*carried, hidden)
    try:
        with module_stack_kept():
            staged_with_room(test, step, get_all, put_all, every, wanted, held, trips)
    except Unsupported as first:
        # State that starts as None, or as a number that becomes a tensor, has its lasting type after one iteration.
        # Without any iteration eager keeps the first type, which no artifact can return: such an input is refused
        # when the artifact runs. A length that may well be 0 is therefore not peeled.
        put_all((*before, 0))
        if not never_empty(sequence.length):
            raise
        try:
            step()
            staged_with_room(test, step, get_all, put_all, every, wanted, held, Trips(sequence.length - 1, exact))
        except Unsupported:
            raise first from None


def never_empty(length: Any) -> bool:
    """Whether a length is that of an input's axis (or one row of it): nobody infers on no rows at all."""
    return isinstance(length, int) or not free_unbacked_symbols(length)


@contextlib.contextmanager
def not_negative(index: Any) -> Iterator[None]:
    """While a body runs, the symbolic shapes know that its index is not negative, which is so by construction.

    They forget it afterwards, or the artifact would check it in every step.
    """
    symbol = index.node.expr if isinstance(index, torch.SymInt) else None
    shape_env = index.node.shape_env if isinstance(index, torch.SymInt) else None
    if symbol is None or shape_env is None or not symbol.is_Symbol:
        yield
        return
    before = shape_env.var_to_range[symbol]
    shape_env.var_to_range[symbol] = ValueRanges(0, int_oo)
    try:
        yield
    finally:
        shape_env.var_to_range[symbol] = before


def _took(site: int, rounds: int) -> None:
    current().take(site, "0" if rounds == 0 else "1" if rounds == 1 else "many")
