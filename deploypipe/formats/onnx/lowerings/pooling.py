"""Adaptive max pooling to any size, of inputs of any size, with its indices.

Torch's exporter has it only where the output size divides the input's
(https://github.com/pytorch/pytorch/issues/148098 is of the same kind). Window i of n covers the positions from
floor(i·size/n) to ceil((i+1)·size/n); windows differ in length by one at most, and the shorter ones repeat their last
position. Height and width are taken one after the other: `Gather` and `ReduceMax`, with NaN as in reductions.py. For
indices, both are gathered at once and `ArgMax` tells which of a window it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import ir

from deploypipe.formats.onnx.lowerings.reductions import extreme, position
from deploypipe.formats.onnx.lowerings.values import literal, op, rank_of, run_time_size


def _windows(value: Any, axis: int, count: int) -> Any:
    """The positions of each window: (count, longest)."""
    size = run_time_size(value, axis)
    number = literal([[i] for i in range(count)])
    start = op.Div(op.Mul(number, size), literal(count))
    end = op.Div(op.Add(op.Mul(op.Add(number, literal(1)), size), literal(count - 1)), literal(count))
    longest = op.ReduceMax(op.Sub(end, start), keepdims=False)
    return op.Min(op.Add(start, op.Range(literal(0), longest, literal(1))), op.Sub(end, literal(1)))


def _known(value: Any, like: Any, shape: Sequence[Any]) -> Any:
    value.dtype, value.shape = like.dtype, ir.Shape(shape)
    return value


def _pooled(value: Any, counts: Sequence[int]) -> Any:
    """`value` pooled over its last axes."""
    rank = rank_of(value)
    result, shape = value, list(value.shape)
    for axis, count in zip(range(rank - len(counts), rank), counts, strict=True):
        if count == 1:
            result = extreme(op.ReduceMax, result, [axis], True)
        else:
            gathered = op.Gather(result, _windows(value, axis, count), axis=axis)
            gathered = _known(gathered, value, [*shape[:axis], count, None, *shape[axis + 1 :]])
            result = extreme(op.ReduceMax, gathered, [axis + 1], False)
        shape[axis] = count
        result = _known(result, value, shape)
    return result


def _places(value: Any, counts: Sequence[int]) -> Any:
    """Where in its plane the maximum of each window stands."""
    rank, spatial = rank_of(value), len(counts)
    axes = range(rank - spatial, rank)
    windows = [_windows(value, axis, count) for axis, count in zip(axes, counts, strict=True)]
    gathered = value
    flat = literal(0)
    for number, (axis, window) in enumerate(zip(axes, windows, strict=True)):
        gathered = op.Gather(gathered, window, axis=axis + number)
        where = op.Unsqueeze(window, literal([k for k in range(2 * spatial) if k // 2 != number]))
        flat = op.Add(op.Mul(flat, run_time_size(value, axis)), where)
    first = rank - spatial
    order = [first + 2 * k for k in range(spatial)] + [first + 2 * k + 1 for k in range(spatial)]
    lead = list(range(first))
    open_ended = literal([0] * (first + spatial) + [-1])
    lined = op.Reshape(op.Transpose(gathered, perm=[*lead, *order]), open_ended)
    lined = _known(lined, value, [*list(value.shape)[:first], *counts, None])
    which = position(op.ArgMax, lined, -1, True)
    flat = op.Transpose(flat, perm=[k - first for k in order])
    flat = op.Reshape(flat, literal([*counts, -1]))
    shape = op.Concat(op.Shape(lined, start=0, end=-1), op.Shape(flat, start=-1), axis=0)
    return op.Squeeze(op.GatherElements(op.Expand(flat, shape), which, axis=-1), literal([-1]))


def adaptive_max_pool(self: Any, output_size: Sequence[int]) -> tuple[Any, Any]:
    return _pooled(self, output_size), _places(self, output_size)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.adaptive_max_pool2d.default: adaptive_max_pool,
    torch.ops.aten.adaptive_max_pool3d.default: adaptive_max_pool,
}
