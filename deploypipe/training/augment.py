"""Images moved, turned and scaled, a batch at a time."""

import math
from dataclasses import dataclass

from torch import Tensor, stack, uint8
from torch.nn import functional as F

from deploypipe.training.settings import check

NUMBERS = 4
"""How many random numbers an image takes."""


@dataclass(frozen=True)
class AugmentConfig:
    shift: float = 0.0
    """Each image moved by up to this many pixels, each way."""
    rotate: float = 0.0
    """Each image turned by up to this many degrees, each way."""
    scale: float = 0.0
    """Each image enlarged or shrunk by up to this fraction."""

    def __post_init__(self) -> None:
        check(self.shift >= 0, f"augment.shift is {self.shift}, must not be negative")
        check(self.rotate >= 0, f"augment.rotate is {self.rotate}, must not be negative")
        check(0 <= self.scale < 1, f"augment.scale is {self.scale}, must be in [0, 1)")

    def __bool__(self) -> bool:
        return bool(self.shift or self.rotate or self.scale)


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
