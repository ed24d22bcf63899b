"""Scattering, running operators along an axis, and adaptive pooling, as eager has them at the edges."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from edges import FINITE, FLOATS, INTEGERS, MISSING, NAN, NO_ROWS, ONE_ROW, PLAIN, TIES
from torch import Tensor

Inputs = Sequence[tuple[Tensor, ...]]

INDEX = torch.tensor([[0, 1, 1, 3, 3, 3], [2, 2, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
SCATTERED: Inputs = [
    (PLAIN, INDEX[:2]),
    (TIES, INDEX),
    (MISSING, INDEX),
    (ONE_ROW, INDEX[:1]),
    (NO_ROWS, INDEX[:0]),
]
EDGES_OF_A_GRAPH: Inputs = [(PLAIN.T, INDEX[0]), (-TIES[::2].T.abs() - 1, torch.tensor([2, 2, 2, 0, 0, 0]))]


def with_self(x: Tensor, y: Tensor) -> Any:
    start = x.new_full((x.shape[0], 4), 0.5)
    return tuple(start.scatter_reduce(1, y, x, reduce) for reduce in ("sum", "prod", "mean", "amax", "amin"))


def without_self(x: Tensor, y: Tensor) -> Any:
    start = x.new_full((x.shape[0], 4), 0.5)
    return tuple(
        start.scatter_reduce(1, y, x, reduce, include_self=False) for reduce in ("sum", "prod", "mean", "amax", "amin")
    )


def per_node(x: Tensor, y: Tensor) -> Any:
    """Edges into nodes, as graph networks pool them: the dynamic axis is the one that is scattered along."""
    where = y.unsqueeze(-1).expand(-1, x.shape[1])
    nodes = x.new_zeros(4, x.shape[1])
    top = nodes.scatter_reduce(0, where, x, "amax", include_self=False)
    return top, nodes.scatter_reduce(0, where, x, "mean", include_self=False), nodes.scatter_add(0, where, x)


def whole_numbers(x: Tensor) -> Any:
    start = x.new_zeros(x.shape[0], 4)
    return tuple(
        start.scatter_reduce(1, x.abs() % 4, x, reduce, include_self=False) for reduce in ("mean", "amax", "amin")
    )


def fewer_indices(x: Tensor) -> Any:
    where = torch.tensor([[1, 3]]).expand(x.shape[0], 2)
    start = x.new_zeros(x.shape[0], 8)
    return start.scatter(1, where, x), start.scatter_add(1, where, x), start.scatter(1, where, 9.0)


def running(x: Tensor) -> Any:
    return x.cumprod(-1), *x.cummax(-1), *x.cummin(1), x.reshape(-1, 2, 3).cumprod(1)


def log_sums(x: Tensor) -> Any:
    return x.logcumsumexp(-1), x.logcumsumexp(0)


def log_sums_of_rows(x: Tensor) -> Any:
    return x.logcumsumexp(-1)


IMAGES = torch.linspace(-1, 1, 140).sin().mul(9).reshape(2, 2, 7, 5)
IMAGE_ROWS: Inputs = [(IMAGES,), (IMAGES[:1],), (IMAGES.round(),)]
WITH_NAN: Inputs = [(IMAGES,), (torch.where(IMAGES > 8, torch.tensor(NAN), IMAGES),)]


def pooled(x: Tensor) -> Any:
    return (
        F.adaptive_max_pool2d(x, (3, 2)),
        F.adaptive_max_pool2d(x, 1),
        F.adaptive_max_pool2d(x, (9, 5)),
        F.adaptive_max_pool2d(x[..., :6, :4], (3, 2)),
        F.adaptive_max_pool1d(x[:, :, 0], 3),
    )


def pooled_with_places(x: Tensor) -> Any:
    return F.adaptive_max_pool2d(x, (3, 2), return_indices=True)


def pooled_volumes(x: Tensor) -> Any:
    return F.adaptive_max_pool3d(x.expand(-1, -1, -1, -1, 4), (2, 3, 3), return_indices=True)


CASES: dict[str, tuple[Callable[..., Any], Inputs]] = {
    "scatter with self": (with_self, SCATTERED),
    "scatter without self": (without_self, SCATTERED),
    "scatter per node": (per_node, EDGES_OF_A_GRAPH),
    "scatter, int64": (whole_numbers, INTEGERS),
    "scatter fewer indices": (fewer_indices, FINITE),
    "running": (running, FLOATS),
    "running, int64": (running, INTEGERS),
    "log of running sums": (log_sums, FINITE),
    "log of running sums at the edges": (log_sums_of_rows, FLOATS),
    "adaptive max pooling": (pooled, [*IMAGE_ROWS, *WITH_NAN]),
    "adaptive max pooling with places": (pooled_with_places, IMAGE_ROWS),
    "adaptive max pooling of volumes": (pooled_volumes, [(IMAGES.reshape(2, 2, 7, 5, 1),), (IMAGES[:1, ..., None],)]),
}


@pytest.mark.sample(6)
@pytest.mark.parametrize(("forward", "inputs"), CASES.values(), ids=CASES)
def test_operator(compare: Any, forward: Any, inputs: Any) -> None:
    compare(forward, inputs)
