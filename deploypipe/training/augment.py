"""Images moved, turned and scaled, a batch at a time."""

import math

from torch import Tensor, stack, uint8
from torch.nn import functional as F

from deploypipe.training.config import AugmentConfig

NUMBERS = 4
"""How many random numbers an image takes."""


def augment(images: Tensor, config: AugmentConfig, numbers: Tensor) -> Tensor:
    """Each of `uint8 [n, 1, height, width]` moved, turned and scaled by amounts of its own, which are drawn evenly
    where `numbers` (float32 [4, n], 0 to 1) are."""
    height, width = images.shape[2:]
    turn, grow, across, down = numbers * 2 - 1
    angle, factor = turn * math.radians(config.rotate), 1 + grow * config.scale
    cosine, sine = angle.cos() / factor, angle.sin() / factor
    # affine_grid measures in halves of the image.
    across, down = across * (config.shift * 2 / width), down * (config.shift * 2 / height)
    theta = stack([cosine, -sine, across, sine, cosine, down], dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, align_corners=False)
    return moved.round().clamp(0, 255).to(uint8)
