"""Loops, and the numbers that they count with: `torch.while_loop` and `item`.

`Loop` and `Identity`, where torch's exporter stamps the calls of subgraphs with a version that it then cannot inline,
and reshapes a whole number in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import ir
from onnxscript.function_libs.torch_lib.ops.core import aten__local_scalar_dense

from deploypipe.formats.onnx.lowerings.values import op
from deploypipe.torch_compat.onnx_exporter import while_loop


def item(tensor: Any) -> Any:
    """A whole number that is a 0-dim tensor is one already; the exporter reshapes it, in every step of a loop."""
    if tensor.dtype == ir.DataType.INT64 and tensor.shape is not None and len(tensor.shape) == 0:
        return op.Identity(tensor)
    return aten__local_scalar_dense(tensor)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.higher_order.while_loop: while_loop,
    torch.ops.aten._local_scalar_dense.default: item,
}
