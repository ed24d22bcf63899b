"""Inverse, solution and logarithm of the determinant of small matrices.

ONNX has `Det` and no inverse; torch's exporter refuses `linalg.inv` and `linalg.solve`
(https://github.com/pytorch/pytorch/issues/148098 is of the same kind). Matrices of static size up to 8 are solved by
Gauss and Jordan's elimination, unrolled: in each column `ArgMax` finds the pivot, `GatherElements` and `Where` exchange
rows, `Mul` and `Sub` clear the column. Larger ones stay refused, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnxscript import ir

from deploypipe.formats.onnx.lowerings.values import literal, op, rank_of, size_of

LARGEST = 8


def _size(matrix: Any, name: str) -> int:
    size = size_of(matrix, rank_of(matrix) - 1)
    if size is None or size > LARGEST:
        raise NotImplementedError(f"{name} of matrices larger than {LARGEST}, or of a dynamic size, has no translation")
    return size


def _reduced(table: Any, size: int, dtype: ir.DataType) -> Any:
    """[A | B] with A made the identity: [1 | A⁻¹ B]."""
    rows = np.arange(size).reshape(-1, 1)
    for k in range(size):
        column = op.Gather(table, literal([k]), axis=-1)
        candidates = op.Where(literal(rows < k, ir.DataType.BOOL), literal(-1, dtype), op.Abs(column))
        pivot = op.ArgMax(candidates, axis=-2, keepdims=True)
        chosen = op.Equal(literal(rows), pivot)
        pivot_row = _row_at(table, pivot)
        kth_row = op.Gather(table, literal([k]), axis=-2)
        exchanged = op.Where(chosen, kth_row, table)
        scaled = op.Div(pivot_row, op.Gather(pivot_row, literal([k]), axis=-1))
        factors = op.Gather(exchanged, literal([k]), axis=-1)
        cleared = op.Sub(exchanged, op.Mul(factors, scaled))
        table = op.Where(literal(rows == k, ir.DataType.BOOL), scaled, cleared)
    return table


def _row_at(table: Any, place: Any) -> Any:
    width = op.Shape(table, start=-1)
    shape = op.Concat(op.Shape(place, start=0, end=-1), width, axis=0)
    return op.GatherElements(table, op.Expand(place, shape), axis=-2)


def _solved(matrix: Any, right: Any, size: int) -> Any:
    table = op.Concat(matrix, right, axis=-1)
    ends = literal([np.iinfo(np.int64).max])
    return op.Slice(_reduced(table, size, matrix.dtype), literal([size]), ends, literal([-1]))


def inverse(A: Any) -> Any:
    size = _size(A, "linalg.inv")
    return _solved(A, op.Expand(literal(np.eye(size), A.dtype), op.Shape(A)), size)


def solve(A: Any, B: Any, left: bool = True) -> Any:
    size = _size(A, "linalg.solve")
    if not left:
        raise NotImplementedError("linalg.solve with left=False has no translation to ONNX")
    # As torch decides it: B is a batch of vectors only where it has one dimension, or A's shape but the last.
    if rank_of(B) == 1 or (rank_of(B) == rank_of(A) - 1 and list(B.shape) == list(A.shape)[:-1]):
        return op.Squeeze(_solved(A, op.Unsqueeze(B, literal([-1])), size), literal([-1]))
    return _solved(A, B, size)


def slogdet(A: Any) -> tuple[Any, Any, Any, Any]:
    determinant = op.Det(A)
    return op.Sign(determinant), op.Log(op.Abs(determinant)), op.Identity(A), _no_error(A)


def _no_error(matrix: Any) -> Any:
    return op.Expand(literal(0, ir.DataType.INT32), op.Shape(matrix, start=0, end=-2))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.linalg_inv.default: inverse,
    torch.ops.aten.inverse.default: inverse,
    torch.ops.aten.linalg_solve.default: solve,
    torch.ops.aten._linalg_slogdet.default: slogdet,
}
