"""Attention without a dimension of heads, and of queries that see no key.

Torch's exporter refuses `scaled_dot_product_attention` of anything but four dimensions. Here one is added in front of
two or three and taken away again: `Unsqueeze`, the exporter's own translation, `Squeeze`.

Where a mask of flags hides every key of a query, eager answers 0; the exporter's translation adds the lowest finite
number to each score, and so answers the mean of all values. A `Where` over the rows of the mask puts the 0 there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import ir
from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention

from deploypipe.formats.onnx.lowerings.values import literal, op, rank_of


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    lacking = 4 - max(rank_of(query), rank_of(key), rank_of(value))
    if lacking <= 0:
        result = aten_scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
        )
        return _nothing_seen(result, attn_mask, query.dtype)
    query, key, value = (_with_heads(t) for t in (query, key, value))
    if attn_mask is not None and rank_of(attn_mask) > 2:
        attn_mask = _with_heads(attn_mask)
    result = aten_scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    return op.Squeeze(_nothing_seen(result, attn_mask, query.dtype), literal(list(range(lacking))))


def _nothing_seen(result: Any, attn_mask: Any, dtype: ir.DataType) -> Any:
    """`result` with 0 in the rows in which `attn_mask` (bool, [..., queries, keys]) hides every key."""
    if attn_mask is None or attn_mask.dtype != ir.DataType.BOOL:
        return result
    seen = op.ReduceMax(op.Cast(attn_mask, to=ir.DataType.FLOAT), literal([-1]), keepdims=1)
    return op.Where(op.Cast(seen, to=ir.DataType.BOOL), result, literal(0.0, dtype))


def _with_heads(value: Any) -> Any:
    lacking = 4 - rank_of(value)
    result = op.Unsqueeze(value, literal(list(range(lacking))))
    result.dtype, result.shape = value.dtype, ir.Shape([1] * lacking + list(value.shape))
    return result


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
}
