"""What the served models are, what eager says of them, and how images become bodies."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from deploypipe.formats import FORMATS

TIMEOUT = 180.0
IMAGE_MODELS = tuple(FORMATS)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 5, stride=2)
        self.linear = nn.Linear(4 * 12 * 12, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.linear(torch.relu(self.convolution(pixels / 255)).flatten(1))


class Pair(nn.Module):
    """Two inputs, two outputs, and an axis that is not the leading one."""

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return x * scale, x.sum(dim=1)


@dataclass(frozen=True)
class Models:
    classifier: nn.Module
    images: Tensor
    """uint8 [64, 1, 28, 28]"""
    artifacts: dict[str, Path]

    def probabilities(self, rows: slice | list[int] = slice(None)) -> np.ndarray:
        """What eager says: float32 [n, 10]."""
        with torch.no_grad():
            return self.classifier(self.images[rows]).softmax(1).numpy()


def png(pixels: Tensor) -> bytes:
    """uint8 [1, 28, 28] → a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels[0].numpy()).save(file, "PNG")
    return file.getvalue()


def npy(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()
