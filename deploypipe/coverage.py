"""Which of a model's paths were proven: every place where Python decides by data, and which ways the probes went."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from deploypipe.capture import Capture
from deploypipe.contract.sidecar import ControlFlow
from deploypipe.contract.signature import dtype_name
from deploypipe.eager import eager_outputs
from deploypipe.parity import Probe


def cover(captured: Capture, probes: Sequence[Probe]) -> tuple[list[Probe], tuple[ControlFlow, ...]]:
    """The probes, with more that were searched for where they leave a way untaken; and what all of them prove."""
    static, module = captured.static, captured.module
    if not static.sites:
        return list(probes), ()
    from deploypipe.staging import outcomes

    taken = outcomes.record_outcomes(module, static, [probe.inputs for probe in probes])
    found = [
        inputs
        for inputs in outcomes.find_inputs(module, static, captured.example_inputs, taken)
        if _same_kind(captured, inputs)
    ]
    if found:
        probes = [*probes, *(Probe("found for a path", inputs, _magnitude(inputs)) for inputs in found)]
        taken = outcomes.record_outcomes(module, static, [probe.inputs for probe in probes])
    missing = outcomes.missing_outcomes(taken)
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


def _magnitude(inputs: tuple[Tensor, ...]) -> float:
    """The largest value, at least 1: the search tries extreme inputs, whose rounding errors are as much larger."""
    largest = [tensor.abs().max().item() for tensor in inputs if tensor.is_floating_point() and tensor.numel()]
    return max([1.0, *(value for value in largest if math.isfinite(value))])


def _same_kind(captured: Capture, inputs: tuple[Tensor, ...]) -> bool:
    """Whether eager returns the kind of thing that it returns for the example. Some models return another for inputs
    that nobody gives them (0 instead of a tensor for an empty sum): no artifact can, so that way stays unproven."""
    leaves, structure = eager_outputs(captured.module, inputs)
    outputs = captured.signature.outputs
    kinds = [(dtype_name(leaf.dtype), leaf.dim()) for leaf in leaves]
    return structure == captured.signature.structure and kinds == [(spec.dtype, len(spec.shape)) for spec in outputs]


def _shown(file: str) -> str:
    """Relative to where we are; of a file elsewhere the name, since its folder is this machine's business."""
    path = Path(file)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path.name
