"""Networks from normalised images `float32 [batch, 1, 28, 28]` to logits `float32 [batch, 10]`, and the wrapper that
lets them take raw pixels."""

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


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
