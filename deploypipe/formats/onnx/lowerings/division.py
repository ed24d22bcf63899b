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
from onnxscript import ir
from onnxscript.function_libs.torch_lib.tensor_typing import TTensor

from deploypipe.formats.onnx.lowerings.values import FLOATS, literal, op


def floor_divide_integers(self: Any, other: Any) -> Any:
    """What remains after the remainder is taken off divides without rest, so that nothing is left to round."""
    return op.Div(op.Sub(self, op.Mod(self, other)), other)


def floor_divide(self: TTensor, other: TTensor) -> Any:
    return _floor_divide(self, other, self.dtype.is_floating_point())


def remainder(self: TTensor, other: TTensor) -> Any:
    return _remainder(self, other, self.dtype.is_floating_point())


def _floor_divide(self: Any, other: Any, floats: bool) -> Any:
    """As torch and Python compute it: through the exact remainder."""
    if not floats:
        return floor_divide_integers(self, other)
    zero = op.CastLike(op.Constant(value_float=0.0), self)
    half = op.CastLike(op.Constant(value_float=0.5), self)
    quotient = op.Div(op.Sub(self, _remainder(self, other, floats)), other)
    floor = op.Floor(quotient)
    floor = op.Add(floor, op.CastLike(op.Greater(op.Sub(quotient, floor), half), self))
    return op.Where(op.Equal(other, zero), op.Div(self, other), floor)


def _remainder(self: Any, other: Any, floats: bool) -> Any:
    """Exact for floats, too: `fmod`, moved to the sign of the divisor."""
    if not floats:
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


def floor_divide_numbers(self: Any, other: Any) -> Any:
    """`//` of two numbers, of which one at least is computed in the call."""
    return _floor_divide(*_alike(self, other))


def remainder_of_numbers(self: Any, other: Any) -> Any:
    """`%` of two numbers, of which one at least is computed in the call."""
    return _remainder(*_alike(self, other))


def _alike(self: Any, other: Any) -> tuple[Any, Any, bool]:
    """Both as tensors of one type, and whether that is a float type: beside a float, an integer becomes one."""
    dtypes = [value.dtype or ir.DataType.INT64 for value in (self, other) if isinstance(value, ir.Value)]
    dtype = next((dtype for dtype in dtypes if dtype in FLOATS), dtypes[0])
    if any(isinstance(value, float) for value in (self, other)) and dtype not in FLOATS:
        dtype = ir.DataType.FLOAT

    def typed(value: Any) -> Any:
        if not isinstance(value, ir.Value):
            return literal(value, dtype)
        return value if value.dtype == dtype else op.Cast(value, to=dtype)

    return typed(self), typed(other), dtype in FLOATS


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.floordiv: floor_divide_numbers,
    operator.mod: remainder_of_numbers,
    torch.ops.aten.floor_divide.default: floor_divide,
    torch.ops.aten.div.Tensor_mode: divide,
    torch.ops.aten.remainder.Tensor: remainder,
    torch.ops.aten.remainder.Scalar: remainder,
}
