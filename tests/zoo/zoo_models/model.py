"""One model of the zoo: how it is built, and how its users call it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Axes = Mapping[str, Mapping[int, str]]
"""Path of an input → axis → name of its size."""


class ZooCall(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def call(*args: Any, **kwargs: Any) -> ZooCall:
    return ZooCall(args, kwargs)


@dataclass(frozen=True)
class ZooModel:
    """`build` and `call` run only when the model is used, so that the table can be read without its library."""

    id: str
    family: str
    build: Callable[[], nn.Module]
    call: Callable[..., ZooCall]
    """Sizes → the call as a user writes it."""
    dynamic: Axes = field(default_factory=dict)
    sizes: tuple[int, ...] = (2, 8)
    """What `call` is given for the capture; as many as it takes."""
    other_sizes: tuple[int, ...] = (3, 11)
    """What it is given for the comparison."""
    library: str = "torchvision"
    """The package that must be installed."""

    def module(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build().eval()

    @property
    def example(self) -> ZooCall:
        torch.manual_seed(1)
        return self.call(*self.sizes)

    @property
    def args(self) -> tuple[Any, ...]:
        return self.example.args

    @property
    def kwargs(self) -> dict[str, Any]:
        return self.example.kwargs

    @property
    def another_call(self) -> ZooCall:
        """Other values, at other sizes where the axes allow it."""
        torch.manual_seed(2)
        return self.call(*self.other_sizes)


def ids(batch: int, length: int, vocabulary: int = 90) -> Tensor:
    """Token numbers, none of them among the first few, which are special ones."""
    return torch.randint(5, vocabulary, (batch, length))


def mask(batch: int, length: int) -> Tensor:
    """Ones, with a padded end in the last row."""
    ones = torch.ones(batch, length, dtype=torch.long)
    ones[-1, -(length // 4) :] = 0
    return ones


def image(batch: int, size: int = 32, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, size, size)


BATCH: Mapping[int, str] = {0: "batch"}
BATCH_LENGTH: Mapping[int, str] = {0: "batch", 1: "length"}
