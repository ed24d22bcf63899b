"""Which branch outcomes were proven: every place where Python decides by data, and which outcomes the inputs take."""

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from deploypipe.capture import Capture
from deploypipe.contract.sidecar import ControlFlow
from deploypipe.contract.signature import dtype_name
from deploypipe.eager import eager_outputs


def cover(
    captured: Capture, probed: Sequence[tuple[Tensor, ...]]
) -> tuple[list[tuple[Tensor, ...]], tuple[ControlFlow, ...]]:
    """Further inputs, searched for where those that are `probed` leave a branch outcome untaken; and which outcomes all
    of them take."""
    static, module = captured.static, captured.module
    if not static.sites:
        return [], ()
    from deploypipe.staging import outcomes

    taken = outcomes.record_outcomes(module, static, list(probed))
    found = [
        inputs
        for inputs in outcomes.find_inputs(module, static, captured.example_inputs, taken)
        if _same_kind(captured, inputs)
    ]
    if found:
        taken = outcomes.record_outcomes(module, static, [*probed, *found])
    missing = outcomes.missing_outcomes(taken)
    return found, tuple(
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


def _same_kind(captured: Capture, inputs: tuple[Tensor, ...]) -> bool:
    """Whether eager returns the kind of thing that it returns for the example. Some models return another for inputs
    that nobody gives them (0 instead of a tensor for an empty sum): no artifact can, so that outcome stays unproven."""
    leaves, structure = eager_outputs(captured.module, inputs)
    outputs = captured.signature.outputs
    kinds = [(dtype_name(leaf.dtype), leaf.dim()) for leaf in leaves]
    return structure == captured.signature.structure and kinds == [(spec.dtype, len(spec.shape)) for spec in outputs]


def _shown(file: str) -> str:
    """Relative to where we are; of a file elsewhere the name, since its folder is this machine's business."""
    path = Path(file)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path.name
