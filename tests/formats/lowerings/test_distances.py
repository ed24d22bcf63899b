"""Distances of points and from the origin, as eager has them at the edges."""

from typing import Any

import pytest
import torch
from edges import INFINITE, MISSING, NO_ROWS, PLAIN, TIES
from torch import Tensor

POINTS = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
SAME = POINTS.clone()
SAME[:, 1] = SAME[:, 0]


def from_the_origin(x: Tensor) -> Any:
    return torch.hypot(x, x.flip(1)), torch.hypot(x * 1e30, x * 1e25)


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, float("inf")])
def test_cdist(compare: Any, p: float) -> None:
    def forward(x: Tensor) -> Any:
        return torch.cdist(x, x[:, :2], p)

    compare(forward, [(POINTS,), (SAME[:1],)])


def test_hypot(compare: Any) -> None:
    compare(from_the_origin, [(PLAIN,), (TIES,), (INFINITE,), (MISSING,), (NO_ROWS,)])
