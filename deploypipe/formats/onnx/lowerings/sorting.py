"""Sorting, and the order statistics that stand on it.

`TopK` of ONNX keeps equal values in their order, in both directions, which is what a stable sort asks for; but it has
no place for NaN (https://github.com/onnx/onnx/issues/4716), which torch takes for the largest value. So the keys are
sorted: the values as float64, where there is room above float32's infinity, with NaN as infinity. `GatherElements` then
fetches the values. Torch's exporter has no `sort.stable`, `median`, `nanmedian`, `kthvalue` and `mode`
(https://github.com/pytorch/pytorch/issues/148098 is of the same kind); its plain `sort` and `topk` misplace NaN.

`median` and `kthvalue` ask `TopK` only for the values up to theirs. `mode` sorts and counts each run of equal values:
`CumSum` numbers the runs and `ScatterElements` adds them up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnxscript import INT64, ir

from deploypipe.formats.onnx.lowerings.values import (
    axis_of,
    is_float,
    literal,
    nan_among,
    op,
    rank_of,
    run_time_size,
    size_of,
)

DOUBLE = ir.DataType.DOUBLE


def keys_of(value: Any) -> Any:
    """What sorts as torch sorts `value`."""
    if is_float(value):
        wide = op.Cast(value, to=DOUBLE)
        below = op.Min(wide, literal(np.finfo(np.float64).max, DOUBLE))
        return op.Where(op.IsNaN(value), literal(np.inf, DOUBLE), below)
    return value if value.dtype in (ir.DataType.INT32, ir.DataType.INT64) else op.Cast(value, to=ir.DataType.INT32)


def first_of_order(value: Any, count: Any, axis: int, largest: bool) -> tuple[Any, Any]:
    """The first `count` values along `axis` in falling or rising order, and where they stood."""
    _, order = op.TopK(keys_of(value), count, axis=axis, largest=largest, sorted=True)
    return op.GatherElements(value, order, axis=axis), order


def sort(self: Any, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    if rank_of(self) == 0:
        return op.Identity(self), literal(0)
    axis = axis_of(dim, rank_of(self))
    return first_of_order(self, run_time_size(self, axis), axis, descending)


def sort_stable(self: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    return sort(self, dim, descending)


def topk(self: Any, k: INT64, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Any, Any]:
    if rank_of(self) == 0:
        return op.Identity(self), literal(0)
    return first_of_order(self, op.Reshape(k, literal([1])), axis_of(dim, rank_of(self)), largest)


def _last(value: Any, axis: int, keepdim: bool) -> Any:
    return op.Gather(value, literal([-1] if keepdim else -1), axis=axis)


def _at_rank(value: Any, count: Any, axis: int, keepdim: bool) -> tuple[Any, Any]:
    """The value that is number `count` (from one) in rising order."""
    values, order = first_of_order(value, count, axis, False)
    return _last(values, axis, keepdim), _last(order, axis, keepdim)


def kthvalue(self: Any, k: INT64, dim: int = -1, keepdim: bool = False) -> tuple[Any, Any]:
    if rank_of(self) == 0:
        return op.Identity(self), literal(0)
    return _at_rank(self, op.Reshape(k, literal([1])), axis_of(dim, rank_of(self)), keepdim)


def median_along(self: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    """The lower one of two in the middle; the first NaN where there is one."""
    if rank_of(self) == 0:
        return op.Identity(self), literal(0)
    axis = axis_of(dim, rank_of(self))
    size = size_of(self, axis)
    if size is not None:
        count = literal([(size + 1) // 2])
    else:
        count = op.Div(op.Add(run_time_size(self, axis), literal([1])), literal([2]))
    value, index = _at_rank(self, count, axis, keepdim)
    if is_float(self):
        has_nan = nan_among(self, [axis], keepdim)
        first = op.ArgMax(op.Cast(op.IsNaN(self), to=ir.DataType.UINT8), axis=axis, keepdims=keepdim)
        value = op.Where(has_nan, literal(np.nan, self.dtype), value)
        index = op.Where(has_nan, first, index)
    return value, index


def median(self: Any) -> Any:
    return median_along(_flat(self), 0)[0]


def nanmedian_along(self: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    """NaN is sorted to the end, and the middle is that of what stands before it."""
    if not is_float(self):
        return median_along(self, dim, keepdim)
    axis = axis_of(dim, rank_of(self))
    values, order = sort(self, axis)
    numbers = op.Cast(op.Not(op.IsNaN(self)), to=ir.DataType.INT64)
    count = op.ReduceSum(numbers, literal([axis]), keepdims=True)
    middle = op.Max(op.Div(op.Sub(count, literal(1)), literal(2)), literal(0))
    found = op.GatherElements(values, middle, axis=axis), op.GatherElements(order, middle, axis=axis)
    return found if keepdim else (op.Squeeze(found[0], literal([axis])), op.Squeeze(found[1], literal([axis])))


def nanmedian(self: Any) -> Any:
    return nanmedian_along(_flat(self), 0)[0]


def mode(self: Any, dim: int = -1, keepdim: bool = False) -> tuple[Any, Any]:
    """The most frequent value, the smallest of several, and where it stands last."""
    if rank_of(self) == 0:
        return op.Identity(self), literal(0)
    axis = axis_of(dim, rank_of(self))
    values, order = sort(self, axis)
    ends = literal([np.iinfo(np.int64).max])
    earlier = op.Slice(values, literal([0]), literal([-1]), literal([axis]))
    later = op.Slice(values, literal([1]), ends, literal([axis]))
    starts = op.Cast(op.Not(op.Equal(earlier, later)), to=ir.DataType.INT64)
    pads = np.zeros(2 * rank_of(self), np.int64)
    pads[axis] = 1
    runs = op.CumSum(op.Pad(starts, literal(pads), literal(0)), literal(axis))
    zeros = op.Sub(runs, runs)
    lengths = op.ScatterElements(zeros, runs, op.Add(zeros, literal(1)), axis=axis, reduction="add")
    longest = op.ArgMax(op.Cast(lengths, to=ir.DataType.INT32), axis=axis, keepdims=True)
    until = op.Cast(op.LessOrEqual(runs, longest), to=ir.DataType.INT64)
    last = op.Sub(op.ReduceSum(until, literal([axis]), keepdims=True), literal(1))
    found = op.GatherElements(values, last, axis=axis), op.GatherElements(order, last, axis=axis)
    return found if keepdim else (op.Squeeze(found[0], literal([axis])), op.Squeeze(found[1], literal([axis])))


def _flat(value: Any) -> Any:
    flat = op.Reshape(value, literal([-1]))
    flat.dtype, flat.shape = value.dtype, ir.Shape([None])
    return flat


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.sort.default: sort,
    torch.ops.aten.sort.stable: sort_stable,
    torch.ops.aten.topk.default: topk,
    torch.ops.aten.kthvalue.default: kthvalue,
    torch.ops.aten.median.dim: median_along,
    torch.ops.aten.median.default: median,
    torch.ops.aten.nanmedian.dim: nanmedian_along,
    torch.ops.aten.nanmedian.default: nanmedian,
    torch.ops.aten.mode.default: mode,
}
