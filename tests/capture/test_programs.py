"""Property tests: random programs of the supported forms give in every format what they give in eager."""

import warnings
from collections import Counter
from typing import Any

import pytest
import torch
from carrying import FORMATS, GENERATED, Carried
from comparing import difference
from hypothesis import HealthCheck, Phase, given, seed, settings
from programs import Program, programs
from torch import Tensor

from deploypipe.errors import ExportError

WAYS = (*FORMATS, GENERATED)
MAY_REFUSE = 0.10
"""The share of programs that the compiler may refuse. A refusal is honest, but these are forms it promises."""
ALIAS = "another name of it changed in place"
"""The generator writes through aliases on purpose. Where that cannot be followed, refusing is what must be done: those
programs are counted apart."""


def eager(program: Program, inputs: tuple[Tensor, ...]) -> Any:
    with torch.no_grad():
        return program.module(*inputs)


def on_an_edge(program: Program, inputs: tuple[Tensor, ...]) -> bool:
    """Whether rounding alone changes the path: a condition so close to its threshold that eager itself flips."""
    expected = eager(program, inputs)
    return any(
        difference(expected, eager(program, (inputs[0] * (1 + nudge) + nudge, *inputs[1:]))) is not None
        for nudge in (1e-6, -1e-6, 1e-7)
    )


def check(program: Program, tally: Counter[str]) -> None:
    tally["programs"] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            carried = Carried(program.module, program.example, program.dynamic, program.probes)
        except ExportError as error:
            tally["refused for an alias" if ALIAS in str(error) else "refused"] += 1
            tally[f"refused: {str(error).splitlines()[0][:100]}"] += 1
            return
        for fmt in WAYS:
            try:
                runner = carried.runner(fmt)
            except ExportError as error:
                tally[f"refused by {fmt}"] += 1
                tally[f"refused by {fmt}: {str(error).splitlines()[0][:100]}"] += 1
                continue
            for inputs in program.probes:
                with torch.no_grad():
                    problem = difference(eager(program, inputs), runner(*inputs))
                if problem and not on_an_edge(program, inputs):
                    raise AssertionError(f"{fmt}, batch {len(inputs[0])}, n={int(inputs[1])}: {problem}")
            tally[f"correct in {fmt}"] += 1


def sweep(count: int, phases: tuple[Phase, ...], chosen: int) -> None:
    tally: Counter[str] = Counter()

    @settings(
        max_examples=count,
        phases=phases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @seed(chosen)
    @given(programs())
    def each(program: Program) -> None:
        check(program, tally)

    each()
    print(dict(tally))
    for kind in ("refused", *(f"refused by {fmt}" for fmt in WAYS)):
        assert tally[kind] <= MAY_REFUSE * tally["programs"], f"{kind}: {dict(tally)}"


def test_three_programs() -> None:
    sweep(3, (Phase.generate,), 0)


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(10))
def test_three_hundred_programs(part: int) -> None:
    """Thirty programs each, so that both cores share them."""
    sweep(30, (Phase.generate, Phase.shrink), part + 1)
