"""Which of a model's paths were proven: every place where Python decides by data, and which ways the probes went."""

import os
from collections.abc import Sequence
from pathlib import Path

from deploypipe import dynamic_to_static
from deploypipe.artifact import ControlFlow
from deploypipe.capture import Capture
from deploypipe.parity import Probe


def cover(captured: Capture, probes: Sequence[Probe]) -> tuple[list[Probe], tuple[ControlFlow, ...]]:
    """The probes, with more that were searched for where they leave a way untaken; and what all of them prove."""
    static, module = captured.static, captured.module
    if not static.sites:
        return list(probes), ()
    taken = dynamic_to_static.record_paths(module, static, [probe.inputs for probe in probes])
    found = dynamic_to_static.find_inputs(module, static, captured.example_inputs, taken)
    if found:
        probes = [*probes, *(Probe("found for a path", inputs) for inputs in found)]
        taken = dynamic_to_static.record_paths(module, static, [probe.inputs for probe in probes])
    missing = dynamic_to_static.missing(taken)
    return list(probes), tuple(
        ControlFlow(
            _shown(site.file),
            site.line,
            site.function,
            site.kind,
            site.became,
            tuple(sorted(taken[site])),
            tuple(sorted(missing.get(site, ()))),
        )
        for site in static.sites
    )


def _shown(file: str) -> str:
    """Relative to where we are; of a file elsewhere the name, since its folder is this machine's business."""
    path = Path(file)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path.name
