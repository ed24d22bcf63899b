"""Parity: does an artifact return what the eager model returns?

Every probe goes through the author's module (eager, eval mode, CPU) and through the artifact, loaded again from its
file. Names, number, shapes and dtypes must be the same; NaN and infinities must stand at the same places; every other
value must satisfy |artifact - eager| <= atol + rtol * |eager|, computed in float64.
"""

import copy
import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.artifact import read_runner
from deploypipe.capture import check_inputs, eager_outputs, reference_copy
from deploypipe.errors import ParityError, UsageError, first_line
from deploypipe.formats.base import Runner
from deploypipe.signature import Signature, Structure, by_name, dtype_name, flatten, leaf_names, unflatten

BATCH_SIZES = (1, 2, 3, 7, 32, 64)
DRAWN = "drawn"


@dataclass(frozen=True)
class Tolerance:
    atol: float
    rtol: float


TOLERANCES: dict[tuple[str, str], Tolerance] = {
    # The same kernels: the defaults of torch.testing.assert_close.
    ("torch", "float64"): Tolerance(1e-7, 1e-7),
    ("torch", "float32"): Tolerance(1e-5, 1.3e-6),
    ("torch", "float16"): Tolerance(1e-5, 1e-3),
    ("torch", "bfloat16"): Tolerance(1e-5, 1.6e-2),
    # Other kernels, which sum in another order.
    ("onnxruntime", "float64"): Tolerance(1e-7, 1e-7),
    ("onnxruntime", "float32"): Tolerance(1e-4, 1e-4),
    ("onnxruntime", "float16"): Tolerance(1e-2, 1e-2),
    ("onnxruntime", "bfloat16"): Tolerance(5e-2, 2e-2),
}
EXACT = Tolerance(0.0, 0.0)
"""For integers and booleans."""


@dataclass(frozen=True)
class Probe:
    """One input tuple, and the family it belongs to ("test images", "random pixels", …)."""

    family: str
    inputs: tuple[Tensor, ...]
    magnitude: float = 1.0
    """The absolute tolerance is for values around 1; it is multiplied by this for inputs that are far from it."""

    @property
    def shapes(self) -> str:
        return " ".join("x".join(map(str, tensor.shape)) or "scalar" for tensor in self.inputs)


@dataclass(frozen=True)
class Outcome:
    """What came of one output on one probe."""

    family: str
    shapes: str
    output: str
    passed: bool
    max_difference: float
    """Largest |artifact - eager| over the finite values; NaN when they could not be compared."""
    atol: float
    rtol: float
    problem: str = ""


@dataclass(frozen=True)
class Report:
    artifact: str
    runtime: str
    provider: str
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        return bool(self.outcomes) and all(outcome.passed for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        return "passed" if self.passed else "failed"

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if not outcome.passed)

    @property
    def max_difference(self) -> float:
        """Over all outcomes; NaN when any could not be compared."""
        differences = [outcome.max_difference for outcome in self.outcomes]
        return math.nan if any(map(math.isnan, differences)) else max(differences, default=math.nan)

    def summary(self) -> dict[str, Any]:
        """What a sidecar keeps of it."""
        return {
            "verdict": self.verdict,
            "comparisons": len(self.outcomes),
            "families": sorted({outcome.family for outcome in self.outcomes}),
            "max_difference": _finite(self.max_difference),
            "runtime": self.runtime,
            "provider": self.provider,
        }

    def to_json(self) -> dict[str, Any]:
        outcomes = [
            {**dataclasses.asdict(outcome), "max_difference": _finite(outcome.max_difference)}
            for outcome in self.outcomes
        ]
        return {"artifact": self.artifact, **self.summary(), "outcomes": outcomes}

    def raise_if_failed(self) -> None:
        """ParityError with the first failures in full and the number of the rest."""
        if self.passed:
            return
        if not self.outcomes:
            raise ParityError(f"{self.artifact} was compared on no probe", "Give at least one probe.")
        shown = "; ".join(
            f"output {failure.output!r} on {failure.family} [{failure.shapes}]: {failure.problem}"
            for failure in self.failures[:3]
        )
        more = f"; and {len(self.failures) - 3} more" if len(self.failures) > 3 else ""
        raise ParityError(
            f"{self.artifact} differs from the eager model on {len(self.failures)} of {len(self.outcomes)} "
            f"comparisons: {shown}{more}"
        )


def verify(
    module: nn.Module,
    artifact: str | Path,
    probes: Iterable[Probe | tuple[Tensor, ...]],
    *,
    device: str = "cpu",
    tolerance: Tolerance | None = None,
) -> Report:
    """Compare the artifact with the eager `module` on every probe; the verdict is in the Report, nothing is raised
    for a difference. `tolerance` replaces the table's for floating-point outputs. ParityError for a file that cannot
    be loaded, UsageError for probes that the eager module itself does not take."""
    return compare(reference_copy(module), read_runner(Path(artifact), device), str(artifact), probes, tolerance)


def compare(
    reference: nn.Module,
    runner: Runner,
    title: str,
    probes: Iterable[Probe | tuple[Tensor, ...]],
    tolerance: Tolerance | None = None,
) -> Report:
    """`verify` for a reference in eval mode and an artifact that are loaded already."""
    outcomes: list[Outcome] = []
    for item in probes:
        probe = as_probe(item)
        outcomes += _compare_probe(reference, runner, probe, tolerance)
    return Report(title, runner.runtime, runner.provider, tuple(outcomes))


def as_probe(item: Probe | tuple[Tensor, ...]) -> Probe:
    return item if isinstance(item, Probe) else Probe("given", check_inputs(item, "a probe"))


def _compare_probe(reference: nn.Module, runner: Runner, probe: Probe, tolerance: Tolerance | None) -> list[Outcome]:
    try:
        expected, structure = eager_outputs(reference, probe.inputs)
        expected, structure = flatten(by_name(unflatten(expected, structure)))
    except UsageError as cause:
        raise UsageError(f"probe {probe.family} [{probe.shapes}]: {cause.message}") from cause
    names = _names(runner.signature, structure, len(expected))

    def outcome(name: str, problem: str, difference: float = math.nan, used: Tolerance = EXACT) -> Outcome:
        return Outcome(probe.family, probe.shapes, name, not problem, difference, used.atol, used.rtol, problem)

    try:
        returned = runner(*copy.deepcopy(probe.inputs))
    except Exception as cause:
        return [outcome(", ".join(names), f"the artifact fails: {first_line(cause)}")]
    actual, actual_structure = flatten(by_name(returned))
    flat = runner.signature is None and len(actual) == len(expected)  # written elsewhere: it knows a flat list only
    if actual_structure != structure and not flat:
        return [outcome(", ".join(names), f"returns {_shown(actual_structure)}, eager {_shown(structure)}")]
    outcomes = []
    for name, want, got in zip(names, expected, actual, strict=True):
        used = EXACT
        if want.is_floating_point() or want.is_complex():
            used = tolerance or TOLERANCES.get((runner.runtime, dtype_name(want.dtype)), Tolerance(1e-5, 1.3e-6))
            used = Tolerance(used.atol * probe.magnitude, used.rtol)
        problem, difference = _compare_tensors(want, got, used)
        outcomes.append(outcome(name, problem, difference, used))
    return outcomes


def _names(signature: Signature | None, structure: Structure, count: int) -> list[str]:
    """The signature's names, where their order cannot have been changed by `by_name`."""
    if signature is not None and len(signature.outputs) == count and '"dict"' not in json.dumps(structure):
        return [spec.name for spec in signature.outputs]
    return leaf_names(structure)


def _shown(structure: Structure) -> str:
    """ "a tensor", "a tuple of 2", "a dict of a, b"."""
    if structure is None:
        return "a tensor"
    ((kind, items),) = structure.items()
    return f"a {kind} of {', '.join(name for name, _ in items) if kind == 'dict' else len(items)}"


def _compare_tensors(want: Tensor, got: Tensor, tolerance: Tolerance) -> tuple[str, float]:
    """What is wrong ("" when nothing is), and the largest difference of the finite values."""
    if want.shape != got.shape:
        return f"shape {list(got.shape)}, eager {list(want.shape)}", math.nan
    if want.dtype != got.dtype:
        return f"dtype {dtype_name(got.dtype)}, eager {dtype_name(want.dtype)}", math.nan
    wide = torch.complex128 if want.is_complex() else torch.float64
    exact = not (want.is_floating_point() or want.is_complex())
    reference, value = want.to(wide), got.to(wide)
    finite = reference.isfinite() & value.isfinite()
    # Non-finite values agree when both are NaN, or the same infinity.
    misplaced = ~finite & ~((reference == value) | (reference.isnan() & value.isnan()))
    difference = torch.where(finite, (value - reference).abs(), 0.0)
    largest = difference.max().item() if difference.numel() else 0.0
    # Integers beyond 2**53 are not exact in float64: compare them as they are.
    allowed = tolerance.atol + tolerance.rtol * reference.abs()
    wrong = misplaced | ((want != got) if exact else (finite & (difference > allowed)))
    if not wrong.any():
        return "", largest
    worst = int(torch.where(wrong, torch.where(misplaced, math.inf, difference), -1.0).argmax())
    index = [int(axis) for axis in torch.unravel_index(torch.tensor(worst), want.shape)]
    return (
        f"{int(wrong.sum())} of {wrong.numel()} values differ, worst at {index}: "
        f"artifact {got.flatten()[worst].item()!r}, "
        f"eager {want.flatten()[worst].item()!r} (atol {tolerance.atol:g}, rtol {tolerance.rtol:g})"
    ), largest


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def image_probes(images: Tensor, sizes: Sequence[int] = BATCH_SIZES, seed: int = 0) -> list[Probe]:
    """Real test images (`uint8 [n, 1, 28, 28]`) and random pixels, a batch of each size."""
    generator = torch.Generator().manual_seed(seed)
    probes = []
    for size in sizes:
        chosen = torch.randint(len(images), (size,), generator=generator)
        noise = torch.randint(0, 256, (size, *images.shape[1:]), dtype=torch.uint8, generator=generator)
        probes += [Probe("test images", (images[chosen],)), Probe("random pixels", (noise,))]
    return probes


def drawn_probes(signature: Signature, example: Sequence[Tensor], sizes: Sequence[int] = BATCH_SIZES) -> list[Probe]:
    """Probes for a model known only by its example: the example itself, and values of its kind and range drawn anew,
    with every symbolic axis at every size."""
    generator = torch.Generator().manual_seed(0)
    probes = [Probe("example", tuple(example))]
    symbols = sorted({axis for spec in signature.inputs for axis in spec.shape if isinstance(axis, str)})
    for turn in range(len(sizes)):
        # Each symbol goes through all sizes, and no two have the same one at a time.
        chosen = {symbol: sizes[(turn + offset) % len(sizes)] for offset, symbol in enumerate(symbols)}
        drawn = []
        for spec, tensor in zip(signature.inputs, example, strict=True):
            shape = [chosen[axis] if isinstance(axis, str) else axis for axis in spec.shape]
            drawn.append(_like(tensor, shape, generator))
        probes.append(Probe(DRAWN, tuple(drawn)))
    return probes


def _like(tensor: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Values of the example's dtype and range; of a constant example, a range around it."""
    size = list(shape)
    if tensor.dtype == torch.bool:
        return torch.rand(size, generator=generator) < 0.5
    if tensor.is_floating_point() or tensor.is_complex():
        real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        finite = real[real.isfinite()].double()
        middle = finite.mean().item() if finite.numel() else 0.0
        spread = (finite.std().item() if finite.numel() > 1 else 0.0) or 1.0
        kind = torch.complex128 if tensor.is_complex() else torch.float64
        return (torch.randn(size, generator=generator, dtype=kind) * spread + middle).to(tensor.dtype)
    low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 1)
    low, high = max(low, -(2**31)), min(high, 2**31 - 2)
    if low == high:
        low, high = min(low, 0), max(high, 1)
    return torch.randint(low, high + 1, size, generator=generator).to(tensor.dtype)
