"""Group normalisation: torch's exporter lets `Reshape` infer a size, which it cannot in a tensor without elements, such
as an empty batch. Here each size is said."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from deploypipe.formats.onnx.lowerings.values import literal, op, rank_of, reshape, run_time_size, size_of


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    channels = input.shape[1]
    each = _product(input, channels // num_groups)
    groups = reshape(input, op.Concat(run_time_size(input, 0), literal([num_groups]), each, axis=0))
    ones, zeros = literal(np.ones(num_groups), input.dtype), literal(np.zeros(num_groups), input.dtype)
    result = reshape(op.InstanceNormalization(groups, ones, zeros, epsilon=eps), op.Shape(input))
    per_channel = literal([-1] + [1] * (rank_of(input) - 2))
    if weight is not None:
        result = op.Mul(result, op.Reshape(weight, per_channel))
    if bias is not None:
        result = op.Add(result, op.Reshape(bias, per_channel))
    return result


def _product(value: Any, factor: int) -> Any:
    """`factor` times the sizes of all axes after the channels, as a vector of one number."""
    sizes = [size_of(value, axis) for axis in range(2, rank_of(value))]
    known = [size for size in sizes if size is not None]
    found = literal([factor * math.prod(known)])
    for axis, size in enumerate(sizes, 2):
        if size is None:
            found = op.Mul(found, run_time_size(value, axis))
    return found


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.aten.group_norm.default: group_norm}
