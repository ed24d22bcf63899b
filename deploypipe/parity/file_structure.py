"""What the saved graph must hold and must not: the weights of the module, symbolic axes, nothing of training, no other
file, no device."""

from collections.abc import Sequence

from torch import nn

from deploypipe.contract.signature import Signature, TensorSpec
from deploypipe.formats.inspection import Inspection, Node
from deploypipe.parity.standards import EQUAL_TO_EAGER, Standard
from deploypipe.parity.verdict import Finding


def check_structure(
    module: nn.Module,
    inspection: Inspection,
    signature: Signature | None,
    standard: Standard = EQUAL_TO_EAGER,
    *,
    own: bool = True,
) -> list[Finding]:
    """A Finding a check. `standard` says which weights may be in the file. `own`: whether deploypipe wrote it, and so
    promised one file. `module` is the reference, in eval mode,
    with the weights that its author gave it: check before it runs where `forward` writes to its buffers."""
    return [
        standard.check_weights(module, inspection),
        _check_axes(inspection, signature),
        _check_mode([*inspection.nodes, *inspection.bodies]),
        _check_external(inspection.external, own),
        _check_devices(inspection.devices),
    ]


def _check_axes(inspection: Inspection, signature: Signature | None) -> Finding:
    """What is certain from declarations alone; a size baked into an operator shows when it runs."""
    check = "batch axis"
    declared = (*inspection.inputs, *inspection.outputs)
    if not declared:
        return Finding(check, True, "the file declares no shapes: judged by the probes alone")
    if signature is None:
        return Finding(check, True, f"as the graph declares: {', '.join(map(str, declared))}")
    symbolic, fixed = [], []
    for wanted, specs in ((signature.inputs, inspection.inputs), (signature.outputs, inspection.outputs)):
        for spec, found in _paired(wanted, specs):
            if len(spec.shape) != len(found.shape):
                continue
            for axis, (symbol, size) in enumerate(zip(spec.shape, found.shape, strict=True)):
                if isinstance(symbol, str) and isinstance(size, int):
                    fixed.append(f"axis {axis} of {spec.name!r} is fixed to {size} in the graph, not {symbol}")
                elif isinstance(symbol, str):
                    symbolic.append(f"{spec.name}[{axis}]")
    if fixed:
        return Finding(check, False, "; ".join(fixed))
    return Finding(check, True, f"symbolic: {', '.join(symbolic)}" if symbolic else "the signature has no symbol")


def _paired(wanted: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> list[tuple[TensorSpec, TensorSpec]]:
    """By position; where their numbers differ, by name."""
    if len(wanted) == len(found):
        return list(zip(wanted, found, strict=True))
    by_name = {spec.name: spec for spec in found}
    return [(spec, by_name[spec.name]) for spec in wanted if spec.name in by_name]


def _check_mode(nodes: Sequence[Node]) -> Finding:
    live = [node for node in nodes if node.training]
    if not live:
        return Finding("train mode", True, f"none of {len(nodes)} operators is in train mode")
    first = live[0]
    where = ", ".join(filter(None, (f"module {first.module!r}" if first.module else "", first.source)))
    more = f", and {len(live) - 1} more" if len(live) > 1 else ""
    return Finding(
        "train mode", False, f"{first.operator} {first.name!r}{f' ({where})' if where else ''} is in train mode{more}"
    )


def _check_external(files: Sequence[str], own: bool) -> Finding:
    if files:
        return Finding("external data", not own, f"needs another file beside it: {', '.join(files)}")
    return Finding("external data", True, "everything is in the one file")


def _check_devices(devices: frozenset[str]) -> Finding:
    baked = sorted(device for device in devices if device != "cpu")
    if baked:
        return Finding("device", False, f"{', '.join(baked)} is baked in: it runs nowhere else")
    return Finding("device", True, "no device but the CPU is named" if devices else "no device is named")
