"""Clamping on one side only.

Torch's exporter writes `Clip`, and ONNX Runtime's takes float32's largest number for the side that is not given:
infinity becomes 3.4e38. Here one side is `Max` or `Min`, both are `Clip`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from deploypipe.formats.onnx.lowerings.values import literal, op


def clamp(self: Any, min: float | None = None, max: float | None = None) -> Any:
    if min is not None and max is not None:
        return op.Clip(self, literal(min, self.dtype), literal(max, self.dtype))
    if min is not None:
        return clamp_min(self, min)
    return op.Identity(self) if max is None else clamp_max(self, max)


def clamp_min(self: Any, min: float) -> Any:
    return op.Max(self, literal(min, self.dtype))


def clamp_max(self: Any, max: float) -> Any:
    return op.Min(self, literal(max, self.dtype))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.clamp.default: clamp,
    torch.ops.aten.clamp_min.default: clamp_min,
    torch.ops.aten.clamp_max.default: clamp_max,
}
