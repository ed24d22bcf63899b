"""Distances: of points to points, and from the origin.

Torch's exporter refuses `cdist` and `hypot`. Here a `cdist` is every difference (`Unsqueeze`, `Sub`) and its norm,
which is as exact as eager for few points, and more so for many, where eager multiplies matrices. A `hypot` scales by
the larger side, so that no square overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from deploypipe.formats.onnx.lowerings.values import literal, op


def cdist(x1: Any, x2: Any, p: float, compute_mode: int | None = None) -> Any:
    apart = op.Abs(op.Sub(op.Unsqueeze(x1, literal([-2])), op.Unsqueeze(x2, literal([-3]))))
    last, dtype = literal([-1]), x1.dtype
    if p == 0:
        return op.ReduceSum(op.Cast(op.Not(op.Equal(apart, literal(0, dtype))), to=dtype), last, keepdims=0)
    if p == 1:
        return op.ReduceSum(apart, last, keepdims=0)
    if p == 2:
        return op.Sqrt(op.ReduceSum(op.Mul(apart, apart), last, keepdims=0))
    if math.isinf(p):
        return op.ReduceMax(apart, last, keepdims=0)
    return op.Pow(op.ReduceSum(op.Pow(apart, literal(p, dtype)), last, keepdims=0), literal(1 / p, dtype))


def hypot(self: Any, other: Any) -> Any:
    zero, one = literal(0, self.dtype), literal(1, self.dtype)
    a, b = op.Abs(self), op.Abs(other)
    long, short = op.Max(a, b), op.Min(a, b)
    ratio = op.Div(short, op.Where(op.Equal(long, zero), one, long))
    size = op.Mul(long, op.Sqrt(op.Add(one, op.Mul(ratio, ratio))))
    # An infinite side is an infinite distance, whatever the other one is.
    return op.Where(op.Or(op.IsInf(a), op.IsInf(b)), literal(math.inf, self.dtype), size)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten._cdist_forward.default: cdist,
    torch.ops.aten.hypot.default: hypot,
}
