"""Example inputs of the networks: what they are captured and described with."""

import torch
from torch import Tensor


def black_images() -> tuple[Tensor, ...]:
    return (torch.zeros(2, 1, 28, 28, dtype=torch.uint8),)


def points() -> tuple[Tensor, ...]:
    return (torch.tensor([[0.5], [-1.0]]),)


def vectors() -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 2, 20).reshape(2, 10),)


def vectors_and_depth() -> tuple[Tensor, ...]:
    return (*vectors(), torch.tensor(3))


def token_sequences() -> tuple[Tensor, ...]:
    return (torch.arange(12).reshape(2, 6) % 100,)
