"""Writing a captured program as ONNX: the exporter of torch, with three of its translations corrected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from onnxscript import ir, opset18
from onnxscript.function_libs.torch_lib.ops.core import aten__local_scalar_dense
from torch.onnx._internal.exporter import _core
from torch.onnx._internal.exporter._torchlib.ops import hop

from deploypipe.dynamic_to_static.capture import Capture

op: Any = opset18

SUBGRAPHS = "pkg.torch.__subgraph__"


def to_onnx(
    capture: Capture, path: str | Path | None = None, opset_version: int = 20, **options: Any
) -> torch.onnx.ONNXProgram:
    """Export a captured program. `options` go to `torch.onnx.export`."""
    settings: dict[str, Any] = {"external_data": False, "verbose": False, **options}
    made = torch.onnx.export(
        capture.program,
        dynamo=True,
        opset_version=opset_version,
        custom_translation_table={
            torch.ops.higher_order.while_loop: while_loop,
            torch.ops.aten._local_scalar_dense.default: item,
        },
        **settings,
    )
    assert made is not None
    if path is not None:
        made.save(str(path), external_data=settings["external_data"])
    return made


def while_loop(cond: Any, body: Any, carried: Sequence[Any], additional: Sequence[Any]) -> Sequence[Any]:
    """The exporter stamps its calls of subgraphs with the opset's version, and then cannot inline them."""
    outputs = hop.higher_order_while_loop(cond, body, carried, additional)
    tracer = _core.current_tracer
    assert tracer is not None
    for node in tracer.nodes:
        if node.domain == SUBGRAPHS:
            node.version = None
    return outputs


def item(tensor: Any) -> Any:
    """A whole number that is a 0-dim tensor is one already; the exporter reshapes it, in every step of a loop."""
    if tensor.dtype == ir.DataType.INT64 and tensor.shape is not None and len(tensor.shape) == 0:
        return op.Identity(tensor)
    return aten__local_scalar_dense(tensor)
