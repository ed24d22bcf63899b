"""Networks from normalised images `float32 [batch, 1, 28, 28]` to logits `float32 [batch, 10]`, and the wrapper that
lets them take raw pixels."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn


class PixelsToLogits(nn.Module):
    """One graph from raw pixels (`uint8 [batch, 1, 28, 28]`) to logits: normalisation is part of the model.

    `mean` and `std`, of the training pixels in 0..255, are buffers: they are saved, exported and checked with the
    weights, so nobody downstream can normalise differently.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(127.5))
        self.register_buffer("std", torch.tensor(127.5))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network((pixels.to(torch.float32) - self.mean) / self.std)
        return logits


def from_pixels(network: Callable[[], nn.Module]) -> Callable[[], PixelsToLogits]:
    """The function that builds `network` becomes one that builds it with the normalisation before it."""

    @functools.wraps(network)
    def build() -> PixelsToLogits:
        return PixelsToLogits(network())

    return build


class Middle(nn.Module):
    """The middle `size × size` of images: MNIST's digits lie in their middle 20 × 20, around it is black."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        top, left = ((side - self.size) // 2 for side in images.shape[2:])
        return images[:, :, top : top + self.size, left : left + self.size]


def _pooled(channels: int, filters: int, kernel_size: int, padding: int = 0) -> list[nn.Module]:
    """A convolution, pooled before batch normalisation and ReLU, which quarters their work. No bias: normalisation
    would take it away again."""
    convolution = nn.Conv2d(channels, filters, kernel_size=kernel_size, padding=padding, bias=False)
    return [convolution, nn.MaxPool2d(2), nn.BatchNorm2d(filters), nn.ReLU()]


@from_pixels
def lean_cnn() -> nn.Module:
    """The least arithmetic that learns 99 % in an epoch."""
    return nn.Sequential(
        Middle(24),
        *_pooled(1, 16, kernel_size=5),
        *_pooled(16, 32, kernel_size=3, padding=1),
        nn.Flatten(),
        nn.Linear(800, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


@from_pixels
def wide_cnn() -> nn.Module:
    """`lean_cnn` with twice the filters and a third convolution in place of the hidden layer: for many epochs."""
    return nn.Sequential(
        Middle(24),
        *_pooled(1, 32, kernel_size=5),
        *_pooled(32, 64, kernel_size=3, padding=1),
        nn.Conv2d(64, 128, kernel_size=3, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1152, 10),
    )


@from_pixels
def simple_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 10, kernel_size=5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(10, 20, kernel_size=5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(320, 50),
        nn.ReLU(),
        nn.Linear(50, 10),
    )


@from_pixels
def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 1024),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(1024, 10),
    )


@from_pixels
def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
