"""What depends on the sign of a value, that of zero included.

Torch's exporter answers -π for `atan2(0, -1)` and 0 for NaN, refuses `signbit` and `copysign`, and writes `Neg` of
uint8 and `LeakyRelu` of float64, which ONNX or ONNX Runtime does not have. Here they are `Atan`, `Less`, `Div` and
`Where`; a whole number is negated as an int32. ONNX does not tell the sign of NaN: it counts as positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import ir

from deploypipe.formats.onnx.lowerings.values import is_float, literal, op

UNSIGNED = (ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64)


def signbit(self: Any) -> Any:
    zero = literal(0, self.dtype)
    below = op.Less(self, zero)
    if not is_float(self):
        return below
    # One over a zero is an infinity of its sign.
    return op.Or(below, op.And(op.Equal(self, zero), op.Less(op.Div(literal(1, self.dtype), self), zero)))


def copysign(self: Any, other: Any) -> Any:
    size = op.Abs(self)
    return op.Where(signbit(other), op.Neg(size), size)


def atan2(self: Any, other: Any) -> Any:
    zero, pi = literal(0, self.dtype), literal(math.pi, self.dtype)
    infinite = op.And(op.IsInf(self), op.IsInf(other))
    up, right = op.Where(infinite, op.Sign(self), self), op.Where(infinite, op.Sign(other), other)
    nowhere = op.And(op.Equal(self, zero), op.Equal(other, zero))
    angle = op.Atan(op.Where(nowhere, self, op.Div(up, right)))
    return op.Where(signbit(other), op.Add(angle, op.Where(signbit(self), op.Neg(pi), pi)), angle)


def negative(self: Any) -> Any:
    if self.dtype not in UNSIGNED:
        return op.Neg(self)
    return op.Cast(op.Neg(op.Cast(self, to=ir.DataType.INT32)), to=self.dtype)


def leaky_relu(self: Any, negative_slope: float = 0.01) -> Any:
    if self.dtype != ir.DataType.DOUBLE:
        return op.LeakyRelu(self, alpha=negative_slope)
    return op.Where(op.Greater(self, literal(0, self.dtype)), self, op.Mul(self, literal(negative_slope, self.dtype)))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.signbit.default: signbit,
    torch.ops.aten.copysign.Tensor: copysign,
    torch.ops.aten.atan2.default: atan2,
    torch.ops.aten.neg.default: negative,
    torch.ops.aten.leaky_relu.default: leaky_relu,
}
