"""One artifact's outputs against eager's: names, order, number, shapes and dtypes strictly, then values in float64."""

import copy
import json
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deploypipe.contract.signature import Signature, dtype_name
from deploypipe.contract.structure import Structure, by_name, kind_of, leaf_names
from deploypipe.eager import flat_tensors
from deploypipe.errors import DeploypipeError, first_line
from deploypipe.formats.processor_time import Overrun
from deploypipe.formats.runner import Runner
from deploypipe.parity.answering import ProcessEnded
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import EagerOutputs
from deploypipe.parity.rounding import NARROW
from deploypipe.parity.standards import Standard
from deploypipe.parity.tolerances import EXACT, Tolerance
from deploypipe.parity.verdict import Distance, Outcome

FLOAT64_FACTOR, FLOAT64_FLOOR = 8.0, 16.0
"""An artifact's error against float64 may be at most FLOAT64_FACTOR times eager's own, plus FLOAT64_FLOOR units in the
last place of the output's largest value.

Rounding alone gives a sum that is taken in another order an error of the same size, not the same error; and where eager
happens to be exact, an error of a few units. `benchmarks/parity/float64_reference.py` measures both on the zoo
(untrained, several seeds, all formats): at most 2.4 times eager's error, and 2.8 units more than eager. The constants
leave three and five times that for longer sums and other processors.
"""


CONDITION_FACTOR = 16.0
"""An artifact may also differ by CONDITION_FACTOR times what eager in float64 moves by when its inputs, weights and
sums move by a unit in the last place: a stable algorithm is exact for some inputs that near (Higham, Accuracy and
Stability of Numerical Algorithms, 2002, section 1.5), and its constant grows with the number of operators. It is asked
where the tolerance is not enough, and widens it at that value alone: where digits cancel, a constant is normalised, or
an exponential of a large number is taken.
"""

SLOWER, SLOWEST_CALL = 50.0, 20.0
"""A call of an artifact may take SLOWER times as much processor time as eager's, and SLOWEST_CALL seconds anyway; one
that takes longer has a loop that never ends."""


@dataclass(frozen=True)
class Returned:
    """What an artifact gave for a probe: its outputs, flat, dicts in the order of their names; or what it failed of."""

    leaves: tuple[Tensor, ...] = ()
    structure: Structure = None
    problem: str = ""
    endless: bool = False
    """It had to be ended."""
    ended: bool = False
    """It ended its process."""

    @property
    def is_last(self) -> bool:
        """Whether no other call should be made: it would take as long, or end a process too."""
        return self.endless or self.ended


def returned_by(runner: Runner, probe: Probe, eager_seconds: float = 0.0) -> Returned:
    """`eager_seconds`: the processor time that eager took for this probe."""
    seconds = max(SLOWEST_CALL, SLOWER * eager_seconds)
    try:
        with runner.within(seconds):
            leaves, structure = flat_tensors(by_name(runner.answer(*copy.deepcopy(probe.inputs))))
    except Overrun as cause:
        return Returned(problem=f"the artifact never returns: {cause}, eager took {eager_seconds:.2g} s", endless=True)
    except ProcessEnded as cause:
        return Returned(problem=f"the artifact ends its process: {first_line(cause)}", ended=True)
    except DeploypipeError:  # not the artifact's doing: a server that is gone
        raise
    except Exception as cause:
        return Returned(problem=f"the artifact fails: {first_line(cause)}")
    return Returned(tuple(leaves), structure)


def compare_outputs(
    answer: EagerOutputs, returned: Returned, probe: Probe, runner: Runner, standard: Standard, family: str = ""
) -> list[Outcome]:
    """An Outcome for each output, or one for all where the artifact fails or nests its outputs differently. `family`
    replaces the probe's."""
    names = output_names(runner.signature, answer)
    problem = returned.problem
    if not problem and returned.structure != answer.structure and not _is_flat(answer, returned, runner):
        problem = f"returns {_shown(returned.structure)}, eager {_shown(answer.structure)}"
    if problem:
        return [Outcome(family or probe.family, probe.shapes, ", ".join(names), False, 0.0, 0.0, problem=problem)]
    exact = answer.exact or [None] * len(names)
    rows = list(zip(names, answer.leaves, in_order(answer, returned, runner), exact, strict=True))
    outcomes = [
        _compare_output(want, got, wide, probe, name, runner.runtime, standard) for name, want, got, wide in rows
    ]
    if not all(outcome.passed for outcome in outcomes):
        moved = answer.moved_by_rounding() or [torch.zeros(leaf.shape, dtype=torch.float64) for leaf in answer.leaves]
        for place, (by, (name, want, got, wide)) in enumerate(zip(moved, rows, strict=True)):
            if not outcomes[place].passed:
                rounding = CONDITION_FACTOR * by
                if answer.ties and not want.is_floating_point():
                    rounding = torch.where(answer.ties.excuse(want, got), math.inf, rounding)
                outcomes[place] = _compare_output(want, got, wide, probe, name, runner.runtime, standard, rounding)
    return [replace(outcome, family=family) for outcome in outcomes] if family else outcomes


def in_order(answer: EagerOutputs, returned: Returned, runner: Runner) -> tuple[Tensor, ...]:
    """What the artifact returned, in the order of eager's leaves."""
    if answer.places and _is_flat(answer, returned, runner):
        return tuple(returned.leaves[place] for place in answer.places)
    return returned.leaves


def _is_flat(answer: EagerOutputs, returned: Returned, runner: Runner) -> bool:
    """Whether it is from an artifact that was written elsewhere, which knows a flat list only."""
    foreign = runner.signature is None and returned.structure != answer.structure
    return foreign and len(returned.leaves) == len(answer.leaves)


def output_names(signature: Signature | None, answer: EagerOutputs) -> list[str]:
    """The signature's names, where their order cannot have been changed by `by_name`."""
    count = len(answer.leaves)
    if signature is not None and len(signature.outputs) == count and '"dict"' not in json.dumps(answer.structure):
        return [spec.name for spec in signature.outputs]
    return leaf_names(answer.structure)


def _shown(structure: Structure) -> str:
    """ "a tensor", "None", "a tuple of 2", "a dict of a, b"."""
    if structure is None:
        return "a tensor"
    kind, items = kind_of(structure)
    if kind == "constant":
        return repr(items)
    return f"a {kind} of {', '.join(str(name) for name, _ in items) if kind == 'dict' else len(items)}"


def _compare_output(
    want: Tensor,
    got: Tensor,
    exact: Tensor | None,
    probe: Probe,
    name: str,
    runtime: str,
    standard: Standard,
    rounding: Tensor | None = None,
) -> Outcome:
    """`want` from eager, `got` from the artifact, `exact` from the float64 reference, if there is one; `rounding` is
    what is allowed beside the tolerance, for each value."""
    used = EXACT
    if want.is_floating_point() or want.is_complex():
        used = standard.tolerance(want.dtype, runtime, name)
        used = Tolerance(used.atol * probe.magnitude, used.rtol)
    problem, distance = _compare(want, got, used, rounding)
    if exact is not None and want.dtype in NARROW and got.shape == exact.shape:
        distance = _measure_errors(distance, want, got, exact)
        allowed = _allowed_error(distance.eager_error, want.dtype, exact)
        if rounding is not None and rounding.numel():
            allowed += rounding.max().item()
        if not problem and distance.error > allowed and standard.limits_error(name):
            problem = (
                f"{distance.error:.3g} away from float64, eager only {distance.eager_error:.3g} "
                f"(allowed {allowed:.3g}, by rounding alone)"
            )
    undecided = rounding is not None and not problem
    return Outcome(probe.family, probe.shapes, name, not problem, used.atol, used.rtol, distance, problem, undecided)


def _compare(want: Tensor, got: Tensor, tolerance: Tolerance, rounding: Tensor | None = None) -> tuple[str, Distance]:
    """What is wrong ("" when nothing is), and how far both are apart."""
    if want.shape != got.shape:
        return f"shape {list(got.shape)}, eager {list(want.shape)}", Distance()
    if want.dtype != got.dtype:
        return f"dtype {dtype_name(got.dtype)}, eager {dtype_name(want.dtype)}", Distance()
    if not want.numel():
        return "", Distance(*[0.0] * 4)
    wide = torch.complex128 if want.is_complex() else torch.float64
    exact = not (want.is_floating_point() or want.is_complex())
    reference, value = want.to(wide), got.to(wide)
    finite = reference.isfinite() & value.isfinite()
    # Non-finite values agree when both are NaN, or the same infinity.
    misplaced = ~finite & ~((reference == value) | (reference.isnan() & value.isnan()))
    difference = torch.where(finite, (value - reference).abs(), 0.0)
    magnitude = torch.where(finite, reference.abs(), 0.0)
    distance = _distance(want, got, difference, magnitude, finite, tolerance)
    # Integers beyond 2**53 are not exact in float64: compare them as they are.
    allowed = tolerance.atol + tolerance.rtol * magnitude
    if rounding is not None:
        allowed = allowed + rounding
    differs = want != got
    if exact and rounding is not None:
        differs = differs & (rounding == 0)  # such an index, or count, is another one for inputs as good as these
    wrong = misplaced | (differs if exact else (finite & (difference > allowed)))
    if not wrong.any():
        return "", distance
    worst = int(torch.where(wrong, torch.where(misplaced, math.inf, difference), -1.0).argmax())
    index = [int(axis) for axis in torch.unravel_index(torch.tensor(worst), want.shape)]
    enough = "" if misplaced.any() or exact else f"; atol {distance.needed_atol:.3g} would have passed"
    return (
        f"{int(wrong.sum())} of {wrong.numel()} values differ, worst at {index}: "
        f"artifact {got.flatten()[worst].item()!r}, "
        f"eager {want.flatten()[worst].item()!r} (atol {tolerance.atol:g}, rtol {tolerance.rtol:g}{enough})"
    ), distance


def _distance(
    want: Tensor, got: Tensor, difference: Tensor, magnitude: Tensor, finite: Tensor, tolerance: Tolerance
) -> Distance:
    flat = difference.flatten()
    rank = max(1, math.ceil(0.99 * len(flat)))
    agreement = math.nan
    if want.dim() == 2 and want.shape[1] > 1 and want.is_floating_point():
        agreement = (want.argmax(1) == got.argmax(1)).double().mean().item()
    return Distance(
        largest=flat.max().item(),
        mean=flat.mean().item(),
        p99=flat.kthvalue(rank).values.item(),
        ulps=(flat / _ulp(magnitude.flatten(), want.dtype)).max().item(),
        cosine=_cosine(want, got, finite),
        agreement=agreement,
        needed_atol=(difference - tolerance.rtol * magnitude).max().clamp(min=0).item(),
    )


def _ulp(magnitude: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance from a float64 value to the next one of `dtype`; 1 for integers."""
    if not (dtype.is_floating_point or dtype.is_complex):
        return torch.ones_like(magnitude)
    facts = torch.finfo(dtype)
    exponent = torch.frexp(magnitude.clamp(min=facts.smallest_normal)).exponent
    return torch.ldexp(torch.full_like(magnitude, facts.eps), exponent - 1)


def _cosine(want: Tensor, got: Tensor, finite: Tensor) -> float:
    if want.is_complex():
        want, got, finite = torch.view_as_real(want), torch.view_as_real(got), finite.unsqueeze(-1)
    a, b = (torch.where(finite, tensor.double(), 0.0).flatten() for tensor in (want, got))
    norm = float(torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b))
    if norm == 0 or not math.isfinite(norm):
        return 1.0 if torch.equal(a, b) else math.nan
    return min(1.0, float(a @ b) / norm)


def _measure_errors(distance: Distance, want: Tensor, got: Tensor, exact: Tensor) -> Distance:
    finite = want.isfinite() & got.isfinite() & exact.isfinite()

    def error(value: Tensor) -> float:
        return torch.where(finite, (value.double() - exact).abs(), 0.0).max().item() if value.numel() else 0.0

    return replace(distance, error=error(got), eager_error=error(want))


def _allowed_error(eager_error: float, dtype: torch.dtype, exact: Tensor) -> float:
    scale = torch.where(exact.isfinite(), exact.abs(), 0.0).max().item() if exact.numel() else 0.0
    return FLOAT64_FACTOR * eager_error + FLOAT64_FLOOR * torch.finfo(dtype).eps * scale
