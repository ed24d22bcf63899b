"""Group normalisation, of an empty batch too."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

IMAGES = [
    (torch.randn(2, 4, 3, 5),),
    (torch.randn(1, 4, 3, 5) * 100,),
    (torch.zeros(3, 4, 3, 5),),
    (torch.zeros(0, 4, 3, 5),),
]
ROWS = [(torch.randn(2, 4, 6),), (torch.randn(0, 4, 6),)]


def scaled(x: Tensor) -> Any:
    norm = nn.GroupNorm(2, 4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    return norm(x)


@pytest.mark.parametrize(
    ("forward", "inputs"),
    [(scaled, IMAGES), (nn.GroupNorm(4, 4, affine=False), IMAGES), (nn.GroupNorm(1, 4, eps=0.1), ROWS)],
    ids=["scaled", "a group for each channel", "one group"],
)
def test_group_norm(compare: Callable[..., None], forward: Any, inputs: Sequence[tuple[Tensor, ...]]) -> None:
    compare(forward, inputs)
