"""Parity: does an artifact return what the eager model returns?

Every probe goes through the author's module (eager, eval mode, CPU) and through the artifact, loaded again from its
file. Names, order, number, shapes and dtypes must be the same; NaN and infinities must stand at the same places; every
other value must satisfy |artifact - eager| <= atol + rtol * |eager|, computed in float64, and must not be further from
a float64 run of the module than rounding explains.

probes.py      what goes in, by families
reference.py   what eager makes of it, in float32 and float64
comparison.py  both against each other
settings.py    the same under other circumstances: threads, optimisation, devices; fresh.py in another process
task.py        every test image
tolerances.py  how far is too far
report.py      what came of it
gate.py        all of it, in order
"""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from deploypipe.parity.gate import Gate, usable
from deploypipe.parity.probes import Probe, drawn_probes, image_probes
from deploypipe.parity.reference import Reference
from deploypipe.parity.report import Culprit, Distance, Evidence, Finding, Outcome, Report
from deploypipe.parity.tolerances import EXACT, NO_OVERRIDES, TOLERANCES, Overrides, Tolerance, parse_overrides

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
