"""Parity: does an artifact return what the eager model returns?

Every probe goes through the author's module (eager, eval mode, CPU) and through the artifact, loaded again from its
file. Names, order, number, shapes and dtypes must be the same; NaN and infinities must stand at the same places; every
other value must satisfy |artifact - eager| <= atol + rtol * |eager|, computed in float64, and must not be further from
a float64 run of the module than rounding explains.

gate.py              all checks, in order
probes.py            the inputs to compare on, by families
reference.py         what eager returns for them, in its own dtype and in float64
comparison.py        one artifact's outputs beside eager's
tolerances.py        how far an artifact may be from eager
standards.py         what an artifact is held to: to equal eager, or to do its task as well
lower_precision.py   the checks of an artifact of lower precision
runtime_settings.py  the same artifact under other settings of its runtime: threads, optimisation, devices
fresh.py             the same artifact in a process of its own
classification.py    the classes of every test image
file_structure.py    what the saved graph must hold and must not
weights.py           whether the file holds the module's weights to the bit
provenance.py        whether the file is the one that its sidecar describes
localisation.py      the first operator of an artifact that departs from eager
recording.py         what each operator of eager computes
matching.py          which of eager's results a tensor is
reproduction.py      a failure as a script of its own
verdict.py           outcomes, findings, and the report that they make
"""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from deploypipe.parity.gate import Gate, usable
from deploypipe.parity.probes import Probe, drawn_probes, image_probes
from deploypipe.parity.reference import Reference
from deploypipe.parity.tolerances import EXACT, NO_OVERRIDES, TOLERANCES, Overrides, Tolerance, parse_overrides
from deploypipe.parity.verdict import Culprit, Distance, Evidence, Finding, Outcome, Report

__all__ = [
    "EXACT",
    "NO_OVERRIDES", "TOLERANCES", "Culprit", "Distance", "Evidence", "Finding", "Gate", "Outcome", "Overrides", "Probe",
    "Reference", "Report", "Tolerance", "drawn_probes", "image_probes", "parse_overrides", "usable", "verify",
]  # fmt: skip


def verify(
    module: nn.Module,
    artifact: str | Path,
    probes: Iterable[Probe | tuple[Tensor, ...]],
    *,
    device: str = "cpu",
    overrides: Overrides = NO_OVERRIDES,
) -> Report:
    """Compare the artifact with the eager `module` on every probe, and check what is in its file; the verdict is in
    the Report, nothing is raised for a difference. ParityError for a file that cannot be loaded, UsageError for probes
    that the eager module itself does not take."""
    reference = Reference(module)
    usable_probes, _ = usable(reference, probes)
    return Gate(reference, tuple(usable_probes), overrides=overrides).examine(Path(artifact), device)
