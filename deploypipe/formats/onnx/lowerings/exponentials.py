"""log1p, expm1 and the activations made of them, near zero and far from it.

Torch's exporter writes `Log(1 + x)` and `Exp(x) - 1`, and ONNX Runtime computes `Elu`, `Selu` and `Celu` so: for
small x all digits are lost. Here the error of 1 + x, and of exp(x), is divided out again (Kahan, in the HP-15C Advanced
Functions Handbook, 1982; Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 1.14.1).

`LogSigmoid` it writes as the logarithm of a sigmoid, which is minus infinity below -104; here it is min(x, 0) -
log1p(exp(-|x|)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import ir

from deploypipe.formats.onnx.lowerings.values import is_float, literal, op

aten: Any = torch.ops.aten
FLOAT = ir.DataType.FLOAT
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""As torch has them."""


def log1p(self: Any) -> Any:
    x = self if is_float(self) else op.Cast(self, to=FLOAT)
    one = literal(1, self.dtype if is_float(self) else FLOAT)
    around = op.Add(one, x)
    corrected = op.Mul(op.Log(around), op.Div(x, op.Sub(around, one)))
    return op.Where(op.Equal(around, one), x, op.Where(op.IsInf(around, detect_negative=0), around, corrected))


def expm1(self: Any) -> Any:
    return _expm1(self, self.dtype) if is_float(self) else _expm1(op.Cast(self, to=FLOAT), FLOAT)


def _expm1(x: Any, dtype: ir.DataType) -> Any:
    one = literal(1, dtype)
    power = op.Exp(x)
    less = op.Sub(power, one)
    corrected = op.Mul(less, op.Div(x, op.Log(power)))
    far = op.Greater(op.Abs(less), literal(0.5, dtype))  # nothing was lost, and the logarithm may be none
    return op.Where(op.Equal(power, one), x, op.Where(far, less, corrected))


def _elu(x: Any, alpha: float, scale: float, input_scale: float) -> Any:
    zero = literal(0, x.dtype)
    below = op.Min(x, zero)
    if input_scale != 1:
        below = op.Mul(below, literal(input_scale, x.dtype))
    below = op.Mul(_expm1(below, x.dtype), literal(alpha * scale, x.dtype))
    above = op.Mul(x, literal(scale, x.dtype)) if scale != 1 else x
    return op.Where(op.Greater(x, zero), above, below)


def elu(self: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    return _elu(self, alpha, scale, input_scale)


def selu(self: Any) -> Any:
    return _elu(self, SELU_ALPHA, SELU_SCALE, 1.0)


def celu(self: Any, alpha: float = 1.0) -> Any:
    return _elu(self, alpha, 1.0, 1.0 / alpha)


def log_sigmoid(self: Any) -> Any:
    power = op.Exp(op.Neg(op.Abs(self)))
    power.dtype = self.dtype
    return op.Sub(op.Min(self, literal(0, self.dtype)), log1p(power))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    aten.log1p.default: log1p,
    aten.expm1.default: expm1,
    aten.elu.default: elu,
    aten.selu.default: selu,
    aten.celu.default: celu,
    aten.log_sigmoid.default: log_sigmoid,
}
