"""Finding a value's place among sorted ones: `bucketize` and `searchsorted`, and with them `isin`.

Torch's exporter has neither (https://github.com/pytorch/pytorch/issues/148098 and
https://github.com/microsoft/onnxscript/issues/1659). The place is the number of boundaries below the value. It is
found in halves, with `GatherElements` or `Gather`, `GreaterOrEqual` or `Greater`, and `Where` for each power of two.
Where the number of boundaries differs from call to call, all are compared and counted by `ReduceSum`. NaN stands behind
all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import INT64, ir

from deploypipe.formats.onnx.lowerings.values import literal, op, rank_of, size_of


def searchsorted(
    sorted_sequence: Any,
    self: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: INT64 | None = None,
) -> Any:
    if sorter is not None:
        ordered = op.GatherElements(sorted_sequence, sorter, axis=-1)
        ordered.dtype, ordered.shape = sorted_sequence.dtype, sorted_sequence.shape
        sorted_sequence = ordered
    right = right or side == "right"
    size = size_of(sorted_sequence, rank_of(sorted_sequence) - 1)
    find = _count_below if size is None else _search
    place = find(sorted_sequence, self, right)
    return op.Cast(place, to=ir.DataType.INT32) if out_int32 else place


def bucketize(self: Any, boundaries: Any, out_int32: bool = False, right: bool = False) -> Any:
    return searchsorted(boundaries, self, out_int32, right)


def _below(boundary: Any, value: Any, right: bool) -> Any:
    return op.Not(op.Greater(boundary, value) if right else op.GreaterOrEqual(boundary, value))


def _count_below(boundaries: Any, values: Any, right: bool) -> Any:
    if rank_of(boundaries) > 1:
        boundaries = op.Unsqueeze(boundaries, literal([-2]))
    below = _below(boundaries, op.Unsqueeze(values, literal([-1])), right)
    return op.ReduceSum(op.Cast(below, to=ir.DataType.INT64), literal([-1]), keepdims=False)


def _search(boundaries: Any, values: Any, right: bool) -> Any:
    rows = rank_of(boundaries) > 1
    size = size_of(boundaries, rank_of(boundaries) - 1)
    assert size is not None
    place = op.Expand(literal(0), op.Shape(values))
    step = 1 << size.bit_length() >> 1
    while step:
        tried = op.Add(place, literal(step))
        asked = op.Min(op.Sub(tried, literal(1)), literal(size - 1))
        found = op.GatherElements(boundaries, asked, axis=-1) if rows else op.Gather(boundaries, asked)
        inside = op.LessOrEqual(tried, literal(size))
        place = op.Where(op.And(inside, _below(found, values, right)), tried, place)
        step //= 2
    return place


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.searchsorted.Tensor: searchsorted,
    torch.ops.aten.bucketize.Tensor: bucketize,
}
