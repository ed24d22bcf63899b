"""NaN and infinities among the inputs: what an artifact makes of them, beside what eager does.

Runtimes differ here by design, and who never sends such values need not care. So a difference is no failure but a
limit, which the sidecar states and a warning names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deploypipe.formats.runner import Runner
from deploypipe.parity.comparison import Returned, in_order, output_names, returned_by
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import EagerOutputs, Reference
from deploypipe.parity.standards import Standard
from deploypipe.parity.tolerances import EXACT, Tolerance
from deploypipe.parity.verdict import Culprit, Finding

CHECK = "non-finite inputs"
AS_EAGER = "as eager"
LOCATED = 3
"""Differences whose operator is looked for, at most: each takes a run of both sides that keeps everything."""


@dataclass(frozen=True)
class NonFinite:
    """What came of the probes with NaN and infinities."""

    tried: int
    differing: tuple[str, ...] = ()
    """The operators of eager's, or else the outputs, at which the artifact departs."""

    @property
    def stated(self) -> str:
        """As the sidecar has it: "as eager", "differs: amax", "" where no input can be such."""
        if not self.tried:
            return ""
        return f"differs: {', '.join(self.differing)}" if self.differing else AS_EAGER

    def finding(self) -> Finding:
        return Finding(CHECK, True, f"{self.tried} with NaN or infinities: {self.stated}")


def try_non_finite(
    reference: Reference,
    runner: Runner,
    probes: Sequence[Probe],
    standard: Standard,
    locate: Callable[[tuple[Tensor, ...]], Culprit | None],
) -> NonFinite:
    differing: dict[str, None] = {}
    located = 0
    for probe in probes:
        answer = reference.answer(probe)
        returned = returned_by(runner, probe, answer.seconds)
        names = output_names(runner.signature, answer)
        tolerances = [_tolerance(want, runner, standard, name) for want, name in zip(answer.leaves, names, strict=True)]
        leaves = in_order(answer, returned, runner)
        name = _first_difference(answer, replace(returned, leaves=leaves), names, tolerances)
        if not name:
            continue
        culprit = locate(probe.inputs) if located < LOCATED and not returned.problem else None
        located += 1
        differing.setdefault(_operator(culprit) or name)
        if returned.is_last:
            break
    return NonFinite(len(probes), tuple(differing))


def _tolerance(want: Tensor, runner: Runner, standard: Standard, name: str) -> Tolerance:
    whole = not (want.is_floating_point() or want.is_complex())
    return EXACT if whole else standard.tolerance(want.dtype, runner.runtime, name)


def _operator(culprit: Culprit | None) -> str:
    """ "amax" for eager's "aten.amax.default", else what the artifact calls it."""
    if culprit is None:
        return ""
    return culprit.eager.split(".")[1] if culprit.eager.count(".") > 1 else culprit.eager or culprit.operator


def _first_difference(
    answer: EagerOutputs, returned: Returned, names: Sequence[str], tolerances: Sequence[Tolerance]
) -> str:
    """The name of the first output that is not eager's; "" where all are."""
    if returned.endless:
        return "a loop that never ends"
    if returned.problem or len(returned.leaves) != len(answer.leaves):
        return names[0]
    exact = answer.exact or answer.leaves
    for name, want, got, wide, tolerance in zip(names, answer.leaves, returned.leaves, exact, tolerances, strict=True):
        if got.shape != want.shape or got.dtype != want.dtype or _differs(want, got, wide, tolerance):
            return name
    return ""


def _differs(want: Tensor, got: Tensor, exact: Tensor, tolerance: Tolerance) -> bool:
    """Whether values differ where eager agrees with itself in float64: an infinity that is only an overflow, or an
    order of operations that makes NaN of it, is none of the artifact's business."""
    kind = torch.complex128 if want.is_complex() else torch.float64
    want, got, exact = want.to(kind), got.to(kind), exact.to(kind)

    def near(value: Tensor) -> Tensor:
        return torch.isclose(value, want, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)

    return bool((near(exact) & ~near(got)).any())
