"""Small pieces of a graph that several lowerings are made of: constants, shapes, and where a value is NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnxscript import ir
from onnxscript.onnx_opset import opset18

op: Any = opset18
"""Each call adds a node to the graph that is being written. Its own annotations fit constants alone."""
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


def literal(value: Any, dtype: ir.DataType = ir.DataType.INT64) -> Any:
    return op.Constant(value=ir.tensor(np.asarray(value).astype(dtype.numpy()), dtype=dtype))


def is_float(value: Any) -> bool:
    return value.dtype in FLOATS


def rank_of(value: Any) -> int:
    return len(value.shape)


def axis_of(dim: int, rank: int) -> int:
    """A dimension counted from the front; a scalar has none and is taken as a vector of one by its caller."""
    return dim + rank if dim < 0 else dim


def size_of(value: Any, axis: int) -> int | None:
    """The size of an axis, where it is the same in every call."""
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def run_time_size(value: Any, axis: int) -> Any:
    """The size of an axis as a vector of one number, read in each call where it may differ."""
    size = size_of(value, axis)
    return literal([size]) if size is not None else op.Shape(value, start=axis, end=axis + 1)


def lowest(dtype: ir.DataType) -> Any:
    """What no value of this type is below: minus infinity for floats."""
    return float("-inf") if dtype in FLOATS else np.iinfo(dtype.numpy()).min


def highest(dtype: ir.DataType) -> Any:
    return float("inf") if dtype in FLOATS else np.iinfo(dtype.numpy()).max


def without_axes(value: Any, axes: Sequence[int]) -> Any | None:
    """The shape that a reduction over `axes` leaves, or None where it is static or a scalar.

    ONNX Runtime does not remove the axis when it reduces a tensor without elements, so that a dynamic shape has to be
    set afterwards."""
    kept = [axis for axis in range(rank_of(value)) if axis not in axes]
    if not kept or all(size_of(value, axis) is not None for axis in kept):
        return None
    if kept == list(range(len(kept))):
        return op.Shape(value, start=0, end=len(kept))
    return op.Gather(op.Shape(value), literal(kept))


def reshape(value: Any, shape: Any) -> Any:
    """Zero means zero here, where ONNX's default is "as before"."""
    return op.Reshape(value, shape, allowzero=1)


def nan_among(value: Any, axes: Sequence[int], keepdim: bool) -> Any:
    """Whether any value along `axes` is NaN, in one pass: a sum of squares is NaN for no other reason."""
    return op.IsNaN(op.ReduceSumSquare(value, literal(list(axes)), keepdims=keepdim))
