"""Writing a captured program as ONNX: the exporter of torch, with some of its translations corrected.

Python and torch round a quotient down, and a remainder takes the sign of its divisor. ONNX's `Div` of integers cuts
towards zero, and the exporter's floor of a float quotient is off by one where the quotient itself was rounded up.
"""

# mypy: disable-error-code="type-var"

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from onnxscript import INT64, ir
from onnxscript.function_libs.torch_lib.ops.core import aten__local_scalar_dense
from onnxscript.function_libs.torch_lib.tensor_typing import TTensor
from onnxscript.onnx_opset import opset18 as op

from deploypipe.staging.trace import StaticProgram
from deploypipe.torch_compat.onnx_exporter import no_symbols_left_pending, translations_read_once, while_loop


def to_onnx(
    capture: StaticProgram, path: str | Path | None = None, opset_version: int = 20, **options: Any
) -> torch.onnx.ONNXProgram:
    """Export a captured program. `options` go to `torch.onnx.export`."""
    settings: dict[str, Any] = {"external_data": False, "verbose": False, **options}
    with torch.no_grad(), no_symbols_left_pending(), translations_read_once():
        made = torch.onnx.export(
            capture.program,
            dynamo=True,
            opset_version=opset_version,
            custom_translation_table=TRANSLATIONS,
            **settings,
        )
    assert made is not None
    if path is not None:
        made.save(str(path), external_data=settings["external_data"])
    return made


def floor_divide_integers(self: INT64, other: INT64) -> INT64:
    """What remains after the remainder is taken off divides without rest, so that nothing is left to round."""
    return op.Div(op.Sub(self, op.Mod(self, other)), other)


def floor_divide(self: TTensor, other: TTensor) -> TTensor:
    """As torch and Python compute it: through the exact remainder."""
    if not self.dtype.is_floating_point():
        return op.Div(op.Sub(self, op.Mod(self, other)), other)
    zero = op.CastLike(op.Constant(value_float=0.0), self)
    half = op.CastLike(op.Constant(value_float=0.5), self)
    quotient = op.Div(op.Sub(self, remainder(self, other)), other)
    floor = op.Floor(quotient)
    floor = op.Add(floor, op.CastLike(op.Greater(op.Sub(quotient, floor), half), self))
    return op.Where(op.Equal(other, zero), op.Div(self, other), floor)


def remainder(self: TTensor, other: TTensor) -> TTensor:
    """Exact for floats, too: `fmod`, moved to the sign of the divisor."""
    if not self.dtype.is_floating_point():
        return op.Mod(self, other)
    zero = op.CastLike(op.Constant(value_float=0.0), self)
    rest = op.Mod(self, other, fmod=1)
    differ = op.And(op.Not(op.Equal(rest, zero)), op.Xor(op.Less(rest, zero), op.Less(other, zero)))
    return op.Where(differ, op.Add(rest, other), rest)


def divide(self: TTensor, other: TTensor, rounding_mode: str = "") -> TTensor:
    if rounding_mode == "floor":
        return floor_divide(self, other)
    if self.dtype.is_integer():  # exact, where the exporter goes through float32
        return op.Div(self, other)
    quotient = op.Div(self, other)
    return op.Mul(op.Sign(quotient), op.Floor(op.Abs(quotient)))


def item(tensor: Any) -> Any:
    """A whole number that is a 0-dim tensor is one already; the exporter reshapes it, in every step of a loop."""
    if tensor.dtype == ir.DataType.INT64 and tensor.shape is not None and len(tensor.shape) == 0:
        return op.Identity(tensor)
    return aten__local_scalar_dense(tensor)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.higher_order.while_loop: while_loop,
    torch.ops.aten._local_scalar_dense.default: item,
    operator.floordiv: floor_divide_integers,
    torch.ops.aten.floor_divide.default: floor_divide,
    torch.ops.aten.div.Tensor_mode: divide,
    torch.ops.aten.remainder.Tensor: remainder,
    torch.ops.aten.remainder.Scalar: remainder,
}
