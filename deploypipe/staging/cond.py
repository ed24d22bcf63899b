"""Two blocks as one `torch.cond`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deploypipe.staging.aliases import join_results
from deploypipe.staging.context import DeliberateRaise, current
from deploypipe.staging.frame import Frame, Values
from deploypipe.staging.growth import Alternatives, note_alternatives
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.recorder import Block, dry_run, values_after
from deploypipe.staging.regions import (
    Operands,
    inside_region,
    leaves_of,
    placeholders,
    rebuild,
    results_of,
    unread,
)
from deploypipe.staging.templates import Fixed, Template, unify
from deploypipe.torch_compat.dispatch import storage_id
from deploypipe.torch_compat.symbols import no_inequalities_kept
from deploypipe.torch_compat.tracing import redirect, shape_environment


class OneSideRaises(Exception):
    """One block raises the author's error: only the other one returns."""

    def __init__(self, error: DeliberateRaise, then_survives: bool) -> None:
        self.error, self.then_survives = error, then_survives


def stage_cond(pred: Tensor, then: Block, orelse: Block, frame: Frame) -> None:
    """Both blocks as one `torch.cond`; afterwards the names of the frame hold its results."""
    before = frame.save()
    context = current()
    with dry_run() as recorder:
        first = values_after(then, frame, before)
        by_then, context.stale = context.stale, {}
        second = values_after(orelse, frame, before)
        context.stale.update(by_then)
        frame.restore(before)
        if isinstance(first, DeliberateRaise) or isinstance(second, DeliberateRaise):
            raise _survivor(first, second)
        templates: list[Template] = [
            unify(a, b) if n in frame.live else Fixed(unread(n))
            for a, b, n in zip(first, second, frame.names, strict=True)
        ]
        leaves = leaves_of(templates, first) + leaves_of(templates, second)
        changed = recorder.changed_outside()
    context.stale.update(recorder.stale)
    sides = [first, second]
    if context.dry:
        _act_dry(pred, changed, leaves)
        results = placeholders(templates)
    elif leaves or changed:
        results = _traced(pred, then, orelse, frame, before, templates, Operands.of(recorder, leaves), changed)
    else:
        frame.restore(rebuild(templates, [], frame.names))
        return
    values = _after(templates, results, frame.names, before, sides)
    noted: Alternatives = []
    for template, value, one, other in zip(templates, values, first, second, strict=True):
        note_alternatives(template, value, one, other, noted)
        if one is True and isinstance(value, Tensor):
            context.flags[id(value)] = value, pred, other
    frame.restore(values)
    if not context.dry:
        for tensor, result in zip(changed, results[len(results) - len(changed) :], strict=True):
            tensor.copy_(result)
    join_results(templates, results, sides)


def _survivor(first: Values | DeliberateRaise, second: Values | DeliberateRaise) -> Exception:
    """`if bad: raise …`: in eager the call fails, so the graph checks the same and goes on with the other side."""
    if isinstance(first, DeliberateRaise) and isinstance(second, DeliberateRaise):
        return first
    if isinstance(first, DeliberateRaise):
        return OneSideRaises(first, then_survives=False)
    assert isinstance(second, DeliberateRaise)
    return OneSideRaises(second, then_survives=True)


def _act_dry(pred: Tensor, changed: Sequence[Tensor], leaves: Sequence[Tensor]) -> None:
    """In the dry run of a block around this one: its recorder must know what is read, changed and passed through."""
    pred.clone()
    for tensor in changed:
        tensor.copy_(tensor.clone())
    for leaf in leaves:
        leaf.clone()


def _traced(
    pred: Tensor,
    then: Block,
    orelse: Block,
    frame: Frame,
    before: Values,
    templates: Sequence[Template],
    operands: Operands,
    changed: Sequence[Tensor],
) -> list[Tensor]:
    avoid = {storage_id(t) for t in operands.tensors}

    def traced(block: Block) -> Callable[..., tuple[Tensor, ...]]:
        def run(*arguments: Any) -> tuple[Tensor, ...]:
            frame.restore_afresh(before)
            operands.redirect_floats(arguments)
            for tensor, argument in zip(operands.tensors, arguments, strict=False):
                if tensor is not argument:
                    redirect(tensor, argument)
            for tensor in changed:
                redirect(tensor, tensor.clone())
            with inside_region():
                block()
                return results_of(templates, frame.save(), changed, avoid)

        return run

    given = (*_apart(operands.tensors), *operands.values[len(operands.tensors) :])
    with no_inequalities_kept(shape_environment()):
        return list(torch.ops.higher_order.cond(pred, traced(then), traced(orelse), given))


def _apart(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Operands that share no memory: of several views of one tensor, all but the first are copied."""
    seen: set[int] = set()
    out: list[Tensor] = []
    for tensor in tensors:
        out.append(tensor.clone() if storage_id(tensor) in seen else tensor)
        seen.add(storage_id(tensor))
    return out


def _after(
    templates: Sequence[Template], results: Sequence[Tensor], names: Sequence[str], before: Values, sides: list[Values]
) -> Values:
    """The values of the names; a growing list knows by how much it has grown at most."""
    values = rebuild(templates, results, names)
    for value, old, a, b in zip(values, before, *sides, strict=True):
        if isinstance(value, GrowingList):
            held = len(old) if isinstance(old, list) else 0
            growth = [side.grown if isinstance(side, GrowingList) else max(0, len(side) - held) for side in (a, b)]
            value.reserved = isinstance(old, GrowingList) and old.reserved
            value.grown = max(growth) if all(isinstance(g, int) for g in growth) else torch.sym_max(*growth)
            value.exact = False
    return values
