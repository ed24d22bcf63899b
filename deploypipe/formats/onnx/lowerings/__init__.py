"""What each ATen operator becomes in ONNX where torch's exporter has no translation of it, or a wrong one.

`TRANSLATIONS` is handed to `torch.onnx.export(dynamo=True, custom_translation_table=...)`. Each module is one family:

reductions.py  amax, max, argmax and their kin, with NaN as torch has it
sorting.py     sort, topk, median, kthvalue, mode
searching.py   bucketize, searchsorted, isin
scans.py       cumprod, cummax, cummin, logcumsumexp
scatter.py     scatter_reduce in all modes, scatter
pooling.py     adaptive max pooling
attention.py   scaled_dot_product_attention of three dimensions, and of queries that see no key
linalg.py      inverse, solution and determinant of small matrices
clamping.py    clamp on one side
masking.py     masked_select, sign
division.py    quotients and remainders of negative numbers
recurrence.py  LSTM, GRU, RNN, for sequences of any length
exponentials.py  log1p, expm1, ELU and its kin near zero, the logarithm of a sigmoid
signs.py       the sign of zero, angles, negation of unsigned numbers
distances.py   cdist, hypot
ceil_pooling.py  pooling that rounds its output size up, averages with a divisor of their own
group_norm.py  group_norm of an empty batch
while_loops.py while_loop, item
values.py      pieces of a graph that several families use
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploypipe.formats.onnx.lowerings import (
    attention,
    ceil_pooling,
    clamping,
    distances,
    division,
    exponentials,
    group_norm,
    linalg,
    masking,
    pooling,
    recurrence,
    reductions,
    scans,
    scatter,
    searching,
    signs,
    sorting,
    while_loops,
)

FAMILIES = (
    reductions,
    sorting,
    searching,
    scans,
    scatter,
    pooling,
    attention,
    linalg,
    clamping,
    masking,
    division,
    recurrence,
    group_norm,
    exponentials,
    signs,
    ceil_pooling,
    distances,
    while_loops,
)

TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator: translation for family in FAMILIES for operator, translation in family.TRANSLATIONS.items()
}
