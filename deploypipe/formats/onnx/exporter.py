"""Writing a captured program as ONNX: the exporter of torch, with the lowerings of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from deploypipe.formats.onnx.bfloat16 import computes_in_bfloat16, in_float32
from deploypipe.formats.onnx.lowerings import TRANSLATIONS
from deploypipe.staging.trace import StaticProgram
from deploypipe.torch_compat.onnx_exporter import no_symbols_left_pending, translations_read_once
from deploypipe.torch_compat.recurrent import sequences_stay_open


def to_onnx(
    capture: StaticProgram, path: str | Path | None = None, opset_version: int = 20, **options: Any
) -> torch.onnx.ONNXProgram:
    """Export a captured program. `options` go to `torch.onnx.export`."""
    narrow = computes_in_bfloat16(capture.program)
    program = in_float32(capture.program) if narrow else capture.program
    _bounds_of_one_kind(program)
    settings: dict[str, Any] = {"external_data": False, "verbose": False, **options}
    if narrow:  # rounding of a weight would be folded into it, and the file would not hold the weight any more
        settings["optimize"] = False
    with torch.no_grad(), no_symbols_left_pending(), translations_read_once(), sequences_stay_open():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset_version,
            custom_translation_table=TRANSLATIONS,
            **settings,
        )
    assert made is not None
    if path is not None:
        made.save(str(path), external_data=settings["external_data"])
    return made


def _bounds_of_one_kind(program: torch.export.ExportedProgram) -> None:
    """The exporter makes a tensor of a whole number beside a float tensor, and then finds no `clamp` of a number and a
    tensor: `clamp(0.5, 2)` is written `clamp(0.5, 2.0)`."""
    clamp: Any = torch.ops.aten.clamp.default
    for graph_module in program.graph_module.modules():
        if not isinstance(graph_module, torch.fx.GraphModule):
            continue
        for node in graph_module.graph.find_nodes(op="call_function", target=clamp):
            if node.args[0].meta["val"].is_floating_point():
                bounds = [float(bound) if type(bound) is int else bound for bound in node.args[1:]]
                node.args = (node.args[0], *bounds)
