"""Values picked by a mask, and the sign of NaN.

Torch's exporter refuses `masked_select`: here it is `Compress`, over the flattened values. ONNX's `Sign` of NaN is NaN,
where torch answers 0: `IsNaN` and `Where`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from deploypipe.formats.onnx.lowerings.values import is_float, literal, op


def masked_select(self: Any, mask: Any) -> Any:
    values, picked = self, mask
    if tuple(self.shape) != tuple(mask.shape):
        values = op.Expand(self, op.Shape(mask))
        picked = op.Expand(mask, op.Shape(values))
    line = literal([-1])
    return op.Compress(op.Reshape(values, line), op.Reshape(picked, line), axis=0)


def sign(self: Any) -> Any:
    if not is_float(self):
        return op.Sign(self)
    return op.Where(op.IsNaN(self), literal(0, self.dtype), op.Sign(self))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.masked_select.default: masked_select,
    torch.ops.aten.sign.default: sign,
}
