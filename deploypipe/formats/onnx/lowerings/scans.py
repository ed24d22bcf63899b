"""Running products, maxima, minima and sums of exponentials along an axis.

ONNX has a running sum only; torch's exporter has no `cumprod` (https://github.com/pytorch/pytorch/issues/102948),
`cummax` and `cummin`, and its `logcumsumexp` loses infinities. Here each position is combined with the one 1, 2, 4, 8
and so on before it: a row of n values takes about log2(n) steps of `Pad` and elementwise operators, and no `Scan`.
Along an axis of dynamic size the number of steps is not known: that is refused, and `logcumsumexp` is the exporter's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnxscript import ir
from onnxscript.function_libs.torch_lib.ops.core import aten_logcumsumexp

from deploypipe.formats.onnx.lowerings.values import (
    axis_of,
    highest,
    is_float,
    literal,
    lowest,
    op,
    rank_of,
    size_of,
)

INT64 = ir.DataType.INT64


def _shifts(value: Any, axis: int, name: str) -> list[int]:
    size = size_of(value, axis)
    if size is None:
        raise NotImplementedError(f"{name} along an axis of dynamic size has no translation to ONNX")
    return [1 << power for power in range(max(size - 1, 0).bit_length())]


def _shifted(value: Any, shift: int, axis: int, rank: int, filler: Any) -> Any:
    """`value` moved along `axis` by `shift`, with `filler` where nothing comes from."""
    pads = np.zeros(2 * rank, np.int64)
    pads[axis], pads[rank + axis] = shift, -shift
    return op.Pad(value, literal(pads), filler)


def cumprod(self: Any, dim: int, dtype: int = -1) -> Any:
    kind = ir.DataType(dtype) if dtype != -1 else self.dtype
    if kind in (ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.UINT8):
        kind = INT64 if dtype == -1 else kind
    result = op.Cast(self, to=kind) if kind != self.dtype else op.Identity(self)
    rank = rank_of(self)
    if rank == 0:
        return result
    axis = axis_of(dim, rank)
    for shift in _shifts(self, axis, "cumprod"):
        result = op.Mul(result, _shifted(result, shift, axis, rank, literal(1, kind)))
    return result


def _running(value: Any, dim: int, name: str, beats: Any, filler: Any) -> tuple[Any, Any]:
    """The best so far and where it stands: the last of equal ones, and NaN above all."""
    rank = rank_of(value)
    if rank == 0:
        return op.Identity(value), literal(0)
    axis = axis_of(dim, rank)
    shifts = _shifts(value, axis, name)
    places = literal(np.arange(value.shape[axis]).reshape([-1 if a == axis else 1 for a in range(rank)]))
    best, place = value, op.Expand(places, op.Shape(value))
    for shift in shifts:
        earlier = _shifted(best, shift, axis, rank, literal(filler, value.dtype))
        taken = beats(best, earlier)
        if is_float(value):
            taken = op.Or(op.IsNaN(best), op.And(taken, op.Not(op.IsNaN(earlier))))
        place = op.Where(taken, place, _shifted(place, shift, axis, rank, literal(0)))
        best = op.Where(taken, best, earlier)
    return op.Identity(best), place


def cummax(self: Any, dim: int) -> tuple[Any, Any]:
    return _running(self, dim, "cummax", op.GreaterOrEqual, lowest(self.dtype))


def cummin(self: Any, dim: int) -> tuple[Any, Any]:
    return _running(self, dim, "cummin", op.LessOrEqual, highest(self.dtype))


def logcumsumexp(self: Any, dim: int) -> Any:
    rank = rank_of(self)
    result = op.Identity(self)
    if rank == 0:
        return result
    axis = axis_of(dim, rank)
    if size_of(self, axis) is None:
        return aten_logcumsumexp(self, dim)
    for shift in _shifts(self, axis, "logcumsumexp"):
        earlier = _shifted(result, shift, axis, rank, literal(float("-inf"), self.dtype))
        # Equal infinities have no difference.
        apart = op.Where(op.Equal(result, earlier), literal(0, self.dtype), op.Abs(op.Sub(result, earlier)))
        more = op.Log(op.Add(op.Exp(op.Neg(apart)), literal(1, self.dtype)))
        result = op.Add(op.Max(result, earlier), more)
    return result


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.cumprod.default: cumprod,
    torch.ops.aten.cummax.default: cummax,
    torch.ops.aten.cummin.default: cummin,
    torch.ops.aten.logcumsumexp.default: logcumsumexp,
}
