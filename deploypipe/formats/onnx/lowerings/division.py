"""Quotients and remainders of negative numbers.

Python and torch round a quotient down, and a remainder takes the sign of its divisor. ONNX's `Div` of integers cuts
towards zero, and the exporter's floor of a float quotient is off by one where the quotient itself was rounded up. Here
they are `Mod`, `Sub`, `Div` and, for floats, `Floor` and `Where`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import INT64
from onnxscript.function_libs.torch_lib.tensor_typing import TTensor

from deploypipe.formats.onnx.lowerings.values import op


def floor_divide_integers(self: INT64, other: INT64) -> Any:
    """What remains after the remainder is taken off divides without rest, so that nothing is left to round."""
    return op.Div(op.Sub(self, op.Mod(self, other)), other)


def floor_divide(self: TTensor, other: TTensor) -> Any:
    """As torch and Python compute it: through the exact remainder."""
    if not self.dtype.is_floating_point():
        return op.Div(op.Sub(self, op.Mod(self, other)), other)
    zero = op.CastLike(op.Constant(value_float=0.0), self)
    half = op.CastLike(op.Constant(value_float=0.5), self)
    quotient = op.Div(op.Sub(self, remainder(self, other)), other)
    floor = op.Floor(quotient)
    floor = op.Add(floor, op.CastLike(op.Greater(op.Sub(quotient, floor), half), self))
    return op.Where(op.Equal(other, zero), op.Div(self, other), floor)


def remainder(self: TTensor, other: TTensor) -> Any:
    """Exact for floats, too: `fmod`, moved to the sign of the divisor."""
    if not self.dtype.is_floating_point():
        return op.Mod(self, other)
    zero = op.CastLike(op.Constant(value_float=0.0), self)
    rest = op.Mod(self, other, fmod=1)
    differ = op.And(op.Not(op.Equal(rest, zero)), op.Xor(op.Less(rest, zero), op.Less(other, zero)))
    return op.Where(differ, op.Add(rest, other), rest)


def divide(self: TTensor, other: TTensor, rounding_mode: str = "") -> Any:
    if rounding_mode == "floor":
        return floor_divide(self, other)
    if self.dtype.is_integer():  # exact, where the exporter goes through float32
        return op.Div(self, other)
    quotient = op.Div(self, other)
    return op.Mul(op.Sign(quotient), op.Floor(op.Abs(quotient)))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.floordiv: floor_divide_integers,
    torch.ops.aten.floor_divide.default: floor_divide,
    torch.ops.aten.div.Tensor_mode: divide,
    torch.ops.aten.remainder.Tensor: remainder,
    torch.ops.aten.remainder.Scalar: remainder,
}
