"""Pooling that rounds its output size up, and average pooling with a divisor of its own.

Torch leaves the last window out where it would begin beyond the input; ONNX's shape inference knows no such rule, so
that the exporter's `MaxPool` and `AveragePool` are refused as invalid. And torch's exporter forgets `divisor_override`
without a word. Here the input is padded so far that no size has to be rounded up (`Pad`), pooled, and windows too many
are cut off (`Slice`); an average is multiplied by what a window holds and divided by the divisor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript.function_libs.torch_lib.ops import nn

from deploypipe.formats.onnx.lowerings.values import literal, lowest, op, rank_of, run_time_size

Sizes = int | Sequence[int]


def _max_pool(dimensions: int, theirs: Callable[..., Any]) -> Callable[..., Any]:
    def max_pool(
        self: Any,
        kernel_size: Sizes,
        stride: Sizes = (),
        padding: Sizes = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
    ) -> Any:
        kernel, pads, dilations = (_each(value, dimensions) for value in (kernel_size, padding, dilation))
        strides = _each(stride, dimensions) if stride else kernel
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        if not ceil_mode or not _may_begin_beyond(strides, pads, reach):
            return theirs(self, kernel, strides, pads, dilations, ceil_mode)

        def pooled(value: Any) -> Any:
            found, _ = op.MaxPool(value, kernel_shape=kernel, strides=strides, dilations=dilations)
            return found

        return _rounded_up(self, pooled, strides, pads, lowest(self.dtype))

    return max_pool


def _avg_pool(dimensions: int, theirs: Callable[..., Any]) -> Callable[..., Any]:
    def avg_pool(
        self: Any,
        kernel_size: Sizes,
        stride: Sizes = (),
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        kernel, pads = (_each(value, dimensions) for value in (kernel_size, padding))
        strides = _each(stride, dimensions) if stride else kernel
        beyond = ceil_mode and _may_begin_beyond(strides, pads, kernel)
        if divisor_override is None and not beyond:
            return theirs(self, kernel, strides, pads, ceil_mode, count_include_pad)

        def averaged(value: Any) -> Any:
            return op.AveragePool(value, kernel_shape=kernel, strides=strides)

        def of_what_counts(value: Any) -> Any:
            return op.Div(averaged(value), averaged(_counting(self, strides, pads, count_include_pad)))

        if divisor_override is None:
            return _rounded_up(self, of_what_counts, strides, pads, 0)
        if ceil_mode:
            average = _rounded_up(self, averaged, strides, pads, 0)
        else:
            average = theirs(self, kernel, strides, pads, False, True)
        return op.Mul(average, literal(math.prod(kernel) / divisor_override, self.dtype))

    return avg_pool


def _may_begin_beyond(strides: Sequence[int], pads: Sequence[int], reach: Sequence[int]) -> bool:
    """Whether the last window can: without padding, only where it steps over places."""
    return any(pads) or any(step > size for step, size in zip(strides, reach, strict=True))


def _counting(self: Any, strides: Sequence[int], pads: Sequence[int], count_include_pad: bool) -> Any:
    """1 at each place of the padded input that counts, else 0."""
    dimensions = len(strides)
    shape = op.Concat(literal([1, 1]), op.Shape(self, start=rank_of(self) - dimensions), axis=0)
    ones = op.Expand(literal(1, self.dtype), shape)
    zero, one = literal(0, self.dtype), literal(1, self.dtype)
    last = literal(list(range(2, dimensions + 2)))
    padded = op.Pad(ones, literal([*pads, *pads]), one if count_include_pad else zero, last)
    return op.Pad(padded, literal([*[0] * dimensions, *(step - 1 for step in strides)]), zero, last)


def _rounded_up(
    self: Any, pooled: Callable[[Any], Any], strides: Sequence[int], pads: Sequence[int], filling: float
) -> Any:
    """`pooled` over the last axes of `self`, whose windows beyond its end see `filling`."""
    dimensions, rank = len(strides), rank_of(self)
    value, batched = self, rank == dimensions + 2
    if not batched:
        value = op.Unsqueeze(value, literal([0]))
    last = list(range(2, dimensions + 2))
    behind = [pad + stride - 1 for pad, stride in zip(pads, strides, strict=True)]
    result = pooled(op.Pad(value, literal([*pads, *behind]), literal(filling, self.dtype), literal(last)))
    for axis, (stride, pad) in enumerate(zip(strides, pads, strict=True)):
        size = run_time_size(self, rank - dimensions + axis)
        begun = op.Div(op.Add(size, literal([pad + stride - 1])), literal([stride]))
        result = op.Slice(result, literal([0]), begun, literal([axis + 2]))
    return result if batched else op.Squeeze(result, literal([0]))


def _each(value: Sizes, dimensions: int) -> list[int]:
    found = [value] if isinstance(value, int) else list(value)
    return found * dimensions if len(found) == 1 else found


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.max_pool1d.default: _max_pool(1, nn.aten_max_pool1d),
    torch.ops.aten.max_pool2d.default: _max_pool(2, nn.aten_max_pool2d),
    torch.ops.aten.max_pool3d.default: _max_pool(3, nn.aten_max_pool3d),
    torch.ops.aten.avg_pool2d.default: _avg_pool(2, nn.aten_avg_pool2d),
    torch.ops.aten.avg_pool3d.default: _avg_pool(3, nn.aten_avg_pool3d),
}
