"""`while`: runs in Python as long as its condition is known, and is staged from there on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from deploypipe.compiler.sites import Site
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import current
from deploypipe.staging.frame import Frame, afresh
from deploypipe.staging.lists import CountingList, GrowingList
from deploypipe.staging.recorder import Block
from deploypipe.staging.truth import is_static, truth
from deploypipe.staging.while_loop import NeedsRoom, Trips, stage_while
from deploypipe.torch_compat.tracing import submodules_left

UNROLL_LIMIT = 10_000


def while_(site: Site | None, test: Callable[[], Any], body: Block, frame: Frame) -> None:
    context = current()
    rounds = 0
    while True:
        going = truth(test())
        if not is_static(going):
            break
        if not going:
            note_rounds(site, rounds)
            return
        body()
        rounds += 1
        if context.capturing and rounds > UNROLL_LIMIT:
            raise Unsupported(
                "a while loop", f"it ran {UNROLL_LIMIT} times without depending on data", "bound the loop"
            )
    context.note(site, "while_loop")
    with context.at(site):
        stage_with_room(lambda: truth(test()), body, frame, Trips())


def stage_with_room(test: Callable[[], Any], body: Block, frame: Frame, trips: Trips) -> None:
    """Stage a loop. If lists grow in it and it runs an unknown number of times, a first loop counts how much. Where the
    loop reads its lists, so that nothing can be counted before, its condition says how often it runs at most."""
    before = frame.save()
    try:
        with submodules_left(current().tracer):
            stage_while(test, body, frame, trips)
    except NeedsRoom as need:
        try:
            room = _counted(test, body, frame, need.names, before, trips)
        except Unsupported as cannot_be_counted:
            frame.restore_afresh(before)
            try:
                stage_while(test, body, frame, replace(trips, bounded=True))
            except NeedsRoom:
                raise cannot_be_counted from None
            return
        frame.restore_afresh(before)
        stage_while(test, body, frame, replace(trips, room=room))


def _counted(
    test: Callable[[], Any], body: Block, frame: Frame, growing: list[str], before: tuple[Any, ...], trips: Trips
) -> dict[str, Any]:
    """How much is appended to each growing list, by a loop that does nothing but count."""
    held = {
        n: v.count if isinstance(v, GrowingList) else len(v)
        for n, v in zip(frame.names, before, strict=True)
        if n in growing
    }
    counting = (
        CountingList(held[n], _last(v)) if n in held else v for n, v in zip(frame.names, afresh(before), strict=True)
    )
    frame.restore(tuple(counting))
    stage_while(test, body, frame.keeping(tuple(growing)), Trips(trips.most, trips.exact))
    room = {n: v.count - held[n] for n, v in zip(frame.names, frame.save(), strict=True) if n in held}
    for count in room.values():
        torch._check(count >= 0)
    return room


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, GrowingList) or value else None


def note_rounds(site: Site | None, rounds: int) -> None:
    """A loop that ran in Python as often as it should."""
    context = current()
    context.note(site, "unrolled" if rounds else "static")
    if site is not None:
        context.rounds[site] = max(context.rounds[site], rounds)
    context.note_outcome(site, "0" if rounds == 0 else "1" if rounds == 1 else "many")
