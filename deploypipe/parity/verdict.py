"""What the gate found: outcomes of comparisons, findings of other checks, where it broke, and the verdict."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from deploypipe.errors import ParityError
from deploypipe.parity.probes import Probe

SHOWN = 4
"""Of what was left out; all of it is in the sidecar and in the report."""


@dataclass(frozen=True)
class Distance:
    """How far an artifact's values are from eager's, in float64 over the finite ones; NaN where it has no meaning."""

    largest: float = math.nan
    mean: float = math.nan
    p99: float = math.nan
    """99 of 100 values are at most this far."""
    ulps: float = math.nan
    """The largest distance in units in the last place of eager's value."""
    cosine: float = math.nan
    """Cosine of the angle between both, as vectors."""
    agreement: float = math.nan
    """Of a [rows, classes] output: the fraction of rows whose largest value is at the same class."""
    needed_atol: float = math.nan
    """The smallest absolute tolerance that would have passed, with the relative one as it is."""
    error: float = math.nan
    """The artifact's largest distance from float64."""
    eager_error: float = math.nan
    """Eager's own."""


@dataclass(frozen=True)
class Outcome:
    """What came of one output on one probe."""

    family: str
    shapes: str
    output: str
    passed: bool
    atol: float
    rtol: float
    distance: Distance = Distance()
    problem: str = ""
    undecided: bool = False
    """It passed because eager's own answer, in float64, moves as far when inputs and weights are rounded: such a
    comparison says little."""

    @property
    def max_difference(self) -> float:
        return self.distance.largest


@dataclass(frozen=True)
class Finding:
    """What came of a check that compares no values."""

    check: str
    """ "weights", "batch axis", "train mode", "classes", …"""
    passed: bool
    detail: str
    """One line: what was found; of a failure what is wrong and where."""


@dataclass(frozen=True)
class Culprit:
    """The first operator of an artifact whose result departs from eager's."""

    node: str
    operator: str
    """ "Conv", "aten.conv2d.default", …: as the artifact calls it."""
    module: str
    """The author's submodule, "network.0"; "" for the module itself or where it is not known."""
    source: str
    """The author's line, "net.py:12"; "" where it is not known."""
    eager: str
    """What eager runs at that place; "" where it is not known."""
    difference: float

    def __str__(self) -> str:
        place = " ".join(filter(None, [self.module and f"in {self.module}", self.source and f"at {self.source}"]))
        eager = f", where eager runs {self.eager}" if self.eager else ""
        return f"it departs at node {self.node!r} ({self.operator})" + (f" {place}" if place else "") + eager


@dataclass(frozen=True)
class Evidence:
    """The first probe that failed, and what eager returns for it."""

    probe: Probe
    expected: tuple[Tensor, ...]
    names: tuple[str, ...]
    tolerances: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Report:
    artifact: str
    runtime: str
    provider: str
    outcomes: tuple[Outcome, ...]
    findings: tuple[Finding, ...] = ()
    culprit: Culprit | None = None
    seed: int = 0
    evidence: Evidence | None = field(default=None, compare=False, repr=False)
    claims: Mapping[str, str] = field(default_factory=dict)
    """What its standard claims of it beside the verdict: of lower precision, how much accuracy it costs."""
    non_finite: str = ""
    """What it makes of NaN and infinities: "as eager", "differs: amax"; "" where that was not tried."""

    budget: float = 0.0
    """Seconds of processor time that the comparisons were given."""
    left_out: tuple[str, ...] = ()
    """What they had no room for."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """A line for each limit that was found and is no failure."""
        _, differs, at = self.non_finite.partition("differs: ")
        limits = (f"{self.artifact}: on NaN and infinities it differs from eager ({at})",) if differs else ()
        return (*limits, self._without) if self.left_out else limits

    @property
    def _without(self) -> str:
        shown = ", ".join(self.left_out[:SHOWN])
        more = f" and {len(self.left_out) - SHOWN} more" if len(self.left_out) > SHOWN else ""
        return (
            f"{self.artifact}: not compared within a budget of {self.budget:.3g} s: {shown}{more}. "
            "A larger --budget or --memory has room for them"
        )

    @property
    def passed(self) -> bool:
        return bool(self.outcomes) and not self.failures and not self.broken and not self._says_nothing

    @property
    def undecided(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.undecided)

    @property
    def _says_nothing(self) -> bool:
        """Whether rounding decides everywhere: then the probes prove nothing."""
        return bool(self.outcomes) and len(self.undecided) * 2 > len(self.outcomes)

    @property
    def verdict(self) -> str:
        return "passed" if self.passed else "failed"

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if not outcome.passed)

    @property
    def broken(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.passed)

    @property
    def max_difference(self) -> float:
        """Over all outcomes; NaN when any could not be compared."""
        differences = [outcome.max_difference for outcome in self.outcomes]
        return math.nan if any(map(math.isnan, differences)) else max(differences, default=math.nan)

    @property
    def reason(self) -> str:
        """Why it failed, in one line; "" when it passed."""
        if self.passed:
            return ""
        if not self.outcomes:
            return f"{self.artifact} was compared on no probe"
        said = [f"{finding.check}: {finding.detail}" for finding in self.broken]
        if self.failures:
            first = self.failures[0]
            said.append(
                f"{len(self.failures)} of {len(self.outcomes)} comparisons, first output {first.output!r} on "
                f"{first.family} [{first.shapes}]: {shortened(first.problem)}"
            )
        if self._says_nothing:
            said.append(
                f"in {len(self.undecided)} of {len(self.outcomes)} comparisons rounding of the inputs moves eager's own"
                " answer as far as the artifact is away, so that they prove nothing: give probes of your own"
            )
        if self.culprit:
            said.append(str(self.culprit))
        return f"{self.artifact} differs from the eager model: " + "; ".join(said)

    def summary(self) -> dict[str, Any]:
        """What a sidecar keeps of it."""
        errors = [(o.distance.error, o.distance.eager_error) for o in self.outcomes]
        in_float64 = [(error, eager) for error, eager in errors if not math.isnan(error)]
        return {
            "verdict": self.verdict,
            "comparisons": len(self.outcomes),
            "undecided": len(self.undecided),
            "families": sorted({outcome.family for outcome in self.outcomes}),
            "checks": [finding.check for finding in self.findings],
            "max_difference": _finite(self.max_difference),
            "error": max((error for error, _ in in_float64), default=None),
            "eager_error": max((eager for _, eager in in_float64), default=None),
            "runtime": self.runtime,
            "provider": self.provider,
            "seed": self.seed,
            **({"non_finite": self.non_finite} if self.non_finite else {}),
            **({"left_out": list(self.left_out)} if self.left_out else {}),
            **self.claims,
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "artifact": self.artifact,
            **self.summary(),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "culprit": _jsonable(dataclasses.asdict(self.culprit)) if self.culprit else None,
            "outcomes": [_jsonable(dataclasses.asdict(outcome)) for outcome in self.outcomes],
        }

    def raise_if_failed(self) -> None:
        """ParityError with the reason."""
        if not self.passed:
            raise ParityError(self.reason, "" if self.outcomes else "Give at least one probe.")


def shortened(text: str, most: int = 240) -> str:
    """A runtime's own message can fill a page."""
    return text if len(text) <= most else f"{text[:most]}…"


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _jsonable(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _jsonable(value) if isinstance(value, Mapping) else _finite(value) if isinstance(value, float) else value
        for key, value in document.items()
    }
