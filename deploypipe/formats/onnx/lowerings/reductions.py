"""Largest and smallest values, and where they stand.

Torch answers NaN where NaN is among the values. ONNX Runtime's `ReduceMax`, `ReduceMin`, `ArgMax` and `ArgMin` may
answer any of the other numbers (https://github.com/microsoft/onnxruntime/issues/10514), and keep the axis that they
reduce where the tensor has no elements. Here they are followed by `ReduceSumSquare`, `IsNaN` and `Where`, and by a
`Reshape` for a dynamic shape. Torch's exporter has no `fmax` and `fmin`, which ignore NaN: `Max` or `Min`, `IsNaN` and
`Where`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import ir

from deploypipe.formats.onnx.lowerings.values import (
    axis_of,
    is_float,
    literal,
    nan_among,
    op,
    rank_of,
    reshape,
    without_axes,
)

NOT_REDUCED = (ir.DataType.BOOL, ir.DataType.INT16)
"""Types that ONNX Runtime reduces only as int32."""


def extreme(reduce: Any, value: Any, axes: Sequence[int], keepdim: bool) -> Any:
    """`reduce` is `op.ReduceMax` or `op.ReduceMin`; no axes means all of them."""
    if rank_of(value) == 0:
        return op.Identity(value)
    axes = sorted(axis_of(axis, rank_of(value)) for axis in axes) or list(range(rank_of(value)))
    dtype = value.dtype
    numbers = op.Cast(value, to=ir.DataType.INT32) if dtype in NOT_REDUCED else value
    result = reduce(numbers, literal(axes), keepdims=False)
    if is_float(value):
        result = op.Where(nan_among(value, axes, False), literal(float("nan"), dtype), result)
    shape = without_axes(value, axes)
    if shape is not None:
        result = reshape(result, shape)
    if keepdim:
        result = op.Unsqueeze(result, literal(axes))
    return op.Cast(result, to=dtype) if dtype in NOT_REDUCED else result


def position(find: Any, value: Any, axis: int, keepdim: bool) -> Any:
    """`find` is `op.ArgMax` or `op.ArgMin`. The first NaN counts as the largest and as the smallest value."""
    if rank_of(value) == 0:
        return literal(0)
    axis = axis_of(axis, rank_of(value))
    kinds = (*NOT_REDUCED, ir.DataType.UINT8, ir.DataType.INT8)
    numbers = op.Cast(value, to=ir.DataType.INT32) if value.dtype in kinds else value
    result = find(numbers, axis=axis, keepdims=False)
    if is_float(value):
        first = op.ArgMax(op.Cast(op.IsNaN(value), to=ir.DataType.UINT8), axis=axis, keepdims=False)
        result = op.Where(nan_among(value, [axis], False), first, result)
    shape = without_axes(value, [axis])
    if shape is not None:
        result = reshape(result, shape)
    return op.Unsqueeze(result, literal([axis])) if keepdim else result


def amax(self: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    return extreme(op.ReduceMax, self, dim, keepdim)


def amin(self: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    return extreme(op.ReduceMin, self, dim, keepdim)


def max_all(self: Any) -> Any:
    return extreme(op.ReduceMax, self, (), False)


def min_all(self: Any) -> Any:
    return extreme(op.ReduceMin, self, (), False)


def max_along(self: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    return extreme(op.ReduceMax, self, [dim], keepdim), position(op.ArgMax, self, dim, keepdim)


def min_along(self: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    return extreme(op.ReduceMin, self, [dim], keepdim), position(op.ArgMin, self, dim, keepdim)


def argmax(self: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    return _argument(op.ArgMax, self, dim, keepdim)


def argmin(self: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    return _argument(op.ArgMin, self, dim, keepdim)


def _argument(find: Any, value: Any, dim: int | None, keepdim: bool) -> Any:
    if dim is not None or rank_of(value) == 0:
        return position(find, value, dim or 0, keepdim)
    flat = op.Reshape(value, literal([-1]))
    flat.dtype, flat.shape = value.dtype, ir.Shape([None])
    result = position(find, flat, 0, False)
    return op.Reshape(result, literal([1] * rank_of(value))) if keepdim else result


def aminmax(self: Any, dim: int | None = None, keepdim: bool = False) -> tuple[Any, Any]:
    axes = () if dim is None else (dim,)
    return extreme(op.ReduceMin, self, axes, keepdim), extreme(op.ReduceMax, self, axes, keepdim)


def fmax(self: Any, other: Any) -> Any:
    return op.Where(op.IsNaN(self), other, op.Where(op.IsNaN(other), self, op.Max(self, other)))


def fmin(self: Any, other: Any) -> Any:
    return op.Where(op.IsNaN(self), other, op.Where(op.IsNaN(other), self, op.Min(self, other)))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.amax.default: amax,
    torch.ops.aten.amin.default: amin,
    torch.ops.aten.max.default: max_all,
    torch.ops.aten.min.default: min_all,
    torch.ops.aten.max.dim: max_along,
    torch.ops.aten.min.dim: min_along,
    torch.ops.aten.argmax.default: argmax,
    torch.ops.aten.argmin.default: argmin,
    torch.ops.aten.aminmax.default: aminmax,
    torch.ops.aten.fmax.default: fmax,
    torch.ops.aten.fmin.default: fmin,
}
