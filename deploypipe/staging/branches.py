"""`if` and the ternary: one side runs where the condition is known; else both are staged into a `torch.cond`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deploypipe.compiler.sites import Site
from deploypipe.staging.cond import OneSideRaises, stage_cond
from deploypipe.staging.context import current
from deploypipe.staging.frame import Frame, Slot
from deploypipe.staging.recorder import Block
from deploypipe.staging.truth import bool_tensor, is_static, truth
from deploypipe.torch_compat.tracing import assert_in_graph


def if_(site: Site | None, test: Any, then: Block, orelse: Block, frame: Frame) -> None:
    context = current()
    pred = truth(test)
    if is_static(pred):
        context.note(site, "static")
        context.note_outcome(site, "true" if pred else "false")
        (then if pred else orelse)()
        return
    context.note(site, "cond")
    tensor = bool_tensor(pred)
    context.predicates[id(tensor)] = tensor, pred
    try:
        with context.at(site):
            stage_cond(tensor, then, orelse, frame)
    except OneSideRaises as met:
        check_in_graph(tensor if met.then_survives else torch.logical_not(tensor), str(met.error))
        context.note(site, "check")
        (then if met.then_survives else orelse)()


def ifexp(site: Site | None, test: Any, then: Callable[[], Any], orelse: Callable[[], Any]) -> Any:
    slot = Slot("the value of the expression")

    def first() -> None:
        slot.value = then()

    def second() -> None:
        slot.value = orelse()

    if_(site, test, first, second, slot.frame)
    return slot.value


def check_in_graph(condition: Tensor, message: str) -> None:
    """The author's assertion, which the program makes when it runs."""
    if current().dry:
        condition.clone()  # the recorder must know that the assertion reads it
        return
    assert_in_graph(condition, message)
