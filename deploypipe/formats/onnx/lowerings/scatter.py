"""`scatter_reduce` in all its modes, `include_self` or not, and `scatter` with more updates than indices.

Torch's exporter writes the mean as a plain overwrite (https://github.com/pytorch/pytorch/issues/152419 and
https://github.com/onnx/onnx/issues/5100), and ONNX Runtime's `ScatterElements` with `min` or `max` loses NaN. Here the
mean is `ScatterElements` with `add`, of the values and of ones, and `Div`; NaN is scattered beside the values, as a
flag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import ir

from deploypipe.formats.onnx.lowerings.division import floor_divide_integers
from deploypipe.formats.onnx.lowerings.values import axis_of, highest, literal, lowest, op, rank_of

MODES = {"sum": "add", "mean": "add", "prod": "mul", "amax": "max", "amin": "min"}
FLOAT = ir.DataType.FLOAT


def scatter_reduce(self: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool = True) -> Any:
    if rank_of(self) == 0:
        row, where, added = (op.Reshape(value, literal([-1])) for value in (self, index, src))
        flat = _scatter_reduce(row, where, added, self.dtype, 0, reduce, include_self)
        return op.Squeeze(flat, literal([0]))
    if rank_of(index) == 0:
        index, src = op.Reshape(index, literal([-1])), op.Reshape(src, literal([-1]))
    axis = axis_of(dim, rank_of(self))
    return _scatter_reduce(self, index, _within(src, index), self.dtype, axis, reduce, include_self)


def _scatter_reduce(
    self: Any, index: Any, src: Any, dtype: ir.DataType, axis: int, reduce: str, include_self: bool
) -> Any:
    def scattered(onto: Any, values: Any, reduction: str) -> Any:
        return op.ScatterElements(onto, index, values, axis=axis, reduction=reduction)

    neutral = {"sum": 0, "mean": 0, "prod": 1, "amax": lowest(dtype), "amin": highest(dtype)}[reduce]
    start = self
    if not include_self:
        start = scattered(self, op.Expand(literal(neutral, dtype), op.Shape(index)), "none")
    result = scattered(start, src, MODES[reduce])
    if reduce == "mean":
        ones = op.Expand(literal(1, dtype), op.Shape(index))
        first = op.Expand(literal(1 if include_self else 0, dtype), op.Shape(self))
        count = op.Max(scattered(first, ones, "add"), literal(1, dtype))
        floats = dtype in (FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
        return op.Div(result, count) if floats else floor_divide_integers(result, count)
    if reduce in ("amax", "amin") and dtype in (FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE):
        missing = scattered(op.Cast(op.IsNaN(start), to=FLOAT), op.Cast(op.IsNaN(src), to=FLOAT), "add")
        return op.Where(op.Greater(missing, literal(0, FLOAT)), literal(float("nan"), dtype), result)
    return result


def _within(src: Any, index: Any) -> Any:
    """The part of `src` that has an index: torch allows more."""
    if tuple(src.shape) == tuple(index.shape):
        return src
    rank = rank_of(index)
    return op.Slice(src, literal([0] * rank), op.Shape(index), literal(list(range(rank))))


def scatter(self: Any, dim: int, index: Any, src: Any) -> Any:
    if rank_of(self) == 0:
        return op.Identity(src)
    if rank_of(index) == 0:
        index, src = op.Reshape(index, literal([-1])), op.Reshape(src, literal([-1]))
        return op.ScatterElements(self, index, src, axis=dim)
    return op.ScatterElements(self, index, _within(src, index), axis=dim)


def scatter_add(self: Any, dim: int, index: Any, src: Any) -> Any:
    return scatter_reduce(self, dim, index, src, "sum")


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scatter_reduce.two: scatter_reduce,
    torch.ops.aten.scatter.src: scatter,
    torch.ops.aten.scatter_add.default: scatter_add,
}
