"""Pooling that rounds its output size up, and averages with a divisor of their own, as eager has them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

IMAGES = torch.rand(3, 2, 5, 7, generator=torch.Generator().manual_seed(0)) * 9 - 6
INPUTS = [(IMAGES,), (-IMAGES[:1],)]

CASES = {
    "max, a window that begins in the padding": lambda x: F.max_pool2d(x, 2, 2, padding=1, ceil_mode=True),
    "max, a step over places": lambda x: F.max_pool2d(x, 1, 3, ceil_mode=True),
    "max, dilation": lambda x: F.max_pool2d(x, (2, 3), (3, 2), padding=(1, 0), dilation=(2, 1), ceil_mode=True),
    "max, whole windows": lambda x: F.max_pool2d(x, 3, 2, padding=1),
    "max, one dimension": lambda x: F.max_pool1d(x[:, 0], 2, 2, padding=1, ceil_mode=True),
    "max, three dimensions": lambda x: F.max_pool3d(x[:, None], 2, 2, padding=1, ceil_mode=True),
    "average, divisor": lambda x: F.avg_pool2d(x, 3, 2, padding=1, divisor_override=5),
    "average, divisor, rounded up": lambda x: F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True, divisor_override=5),
    "average, rounded up": lambda x: F.avg_pool2d(x, (2, 3), 2, padding=1, ceil_mode=True, count_include_pad=False),
    "average, three dimensions": lambda x: F.avg_pool3d(x[:, None], (1, 2, 2), divisor_override=3),
}  # fmt: skip


@pytest.mark.sample(4)
@pytest.mark.parametrize("forward", CASES.values(), ids=CASES)
def test_ceil_pooling(compare: Any, forward: Any) -> None:
    compare(forward, INPUTS)


def test_an_image_alone(compare: Any) -> None:
    """Without a batch axis: the first of the image is its channels."""

    def forward(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2, 2, padding=1, ceil_mode=True)

    compare(forward, [(IMAGES[0],), (IMAGES[0, :1],)])
