"""`for`: runs in Python over what has a constant length, and is staged over what has not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deploypipe.compiler.sites import AT_LEAST_ONCE, Site
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.branches import if_
from deploypipe.staging.context import current
from deploypipe.staging.frame import Frame
from deploypipe.staging.logic import and_
from deploypipe.staging.loops import note_rounds, stage_with_room
from deploypipe.staging.packing import number_of, number_tensor
from deploypipe.staging.recorder import Block
from deploypipe.staging.sequences import Sequence, sequence_of
from deploypipe.staging.truth import is_static, known, truth
from deploypipe.staging.while_loop import Trips
from deploypipe.torch_compat.dispatch import pytree
from deploypipe.torch_compat.symbols import depends_on_data, known_not_negative, symbols_in
from deploypipe.torch_compat.tracing import submodules_left

SHORT = 3
"""Iterations that are cheaper unrolled than staged."""

Going = Callable[[], Any]
"""Whether a loop that can be left early goes on."""
Body = Callable[[Any], Any]


def for_(site: Site | None, iterable: Any, going: Going | None, body: Body, frame: Frame) -> None:
    context = current()
    sequence = sequence_of(iterable) if context.capturing else None
    if sequence is not None and sequence.fixed is None and not isinstance(sequence.length, int):
        context.note(site, "while_loop")
        with context.at(site):
            _stage(sequence, going, body, frame)
        return
    if sequence is not None:
        _bounded(site, sequence, going, body, frame)
        return
    rounds = 0
    remaining = iter(iterable)
    for item in remaining:
        if going is not None and rounds:
            more = truth(going())
            if not is_static(more):
                _rest_of(site, [item, *remaining], isinstance(iterable, range), going, body, frame)
                return
            if not more:
                break
        body(item)
        rounds += 1
    note_rounds(site, rounds)


def _rest_of(site: Site | None, items: list[Any], numbers: bool, going: Going, body: Body, frame: Frame) -> None:
    """The iterations of a constant sequence that may be left out because of a `break` that depends on data."""
    context = current()
    context.note(site, AT_LEAST_ONCE)
    if numbers and len(items) > SHORT:
        before = frame.save()
        step = items[1] - items[0]
        sequence = Sequence(len(items), lambda i: items[0] + i * step)
        try:
            with submodules_left(context.tracer), context.at(site):
                _stage(sequence, going, body, frame)
            context.note(site, "while_loop")
            return
        except Exception:
            # A body that needs the index as a constant (a module list, a shape) is unrolled instead.
            frame.restore_afresh(before)
    context.note(site, "unrolled with cond")
    for item in items:
        _guarded(going(), partial(body, item), frame)


def _bounded(site: Site | None, sequence: Sequence, going: Going | None, body: Body, frame: Frame) -> None:
    """A sequence of dynamic length beside constants (`zip(self.layers, x)`): unrolled to the constants' length."""
    current().note(site, "unrolled with cond")
    for i in range(len(sequence.fixed or [])):
        more: list[Callable[[], Any]] = [partial(_inside, i, sequence.length)]
        if going is not None and i:
            more.insert(0, going)
        _guarded(and_(*more), partial(_body_at, body, sequence, i), frame)


def _inside(i: int, length: Any) -> Any:
    return known(length > i)


def _body_at(body: Body, sequence: Sequence, i: int) -> None:
    body(sequence.at(i))


def _guarded(test: Any, block: Block, frame: Frame) -> None:
    """One iteration, if it is made at all."""
    if_(None, test, block, lambda: None, frame.keeping(frame.carried))


def _stage(sequence: Sequence, going: Going | None, body: Body, frame: Frame) -> None:
    """A loop over an index, which is one more carried variable: a tensor, so that no step converts it and back."""
    index: Any = 0
    limit = sequence.length
    if isinstance(limit, torch.SymInt):
        limit = torch.scalar_tensor(limit, dtype=torch.int64)  # computed once, not in every step

    def put(value: Any) -> None:
        nonlocal index
        index = value

    def test() -> Any:
        inside = index < limit
        return inside if going is None else and_(lambda: inside, going)

    def step() -> None:
        nonlocal index
        position = number_of(index) if isinstance(index, Tensor) else index
        with known_not_negative(position):
            item = sequence.at(position)
            _seen(item, position)
            body(item)
        index = index + 1

    exact = going is None
    before = frame.save()
    indexed = frame.with_index(lambda: index, put)
    try:
        with submodules_left(current().tracer):
            stage_with_room(test, step, indexed, Trips(sequence.length, exact))
    except Unsupported as first:
        # State that starts as None, or as a number that becomes a tensor, has its lasting type after one iteration.
        # Without any iteration eager keeps the first type, which no artifact can return: such an input is refused
        # when the artifact runs. A length that may well be 0 is therefore not peeled.
        indexed.restore((*before, 0))
        if not isinstance(sequence.length, int) and depends_on_data(sequence.length):
            raise
        try:
            step()
            stage_with_room(test, step, indexed, Trips(sequence.length - 1, exact))
        except Unsupported:
            raise first from None


def _seen(item: Any, position: Any) -> None:
    """The recorder must see the sizes that an item is computed from, also where the body does not read the item."""
    for number in pytree.tree_leaves(item):
        if isinstance(number, torch.SymInt) and symbols_in(number) - symbols_in(position):
            number_tensor(number, torch.int64)
