"""One published bug: a module of our own in which it would show, and the inputs at which it does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Function = Callable[..., Any]
Inputs = tuple[Tensor, ...]
NAN, INF = float("nan"), float("inf")


class Calls(nn.Module):
    """Calls a function of one to three tensors."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function


class Calls1(Calls):
    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Calls2(Calls):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)


class Calls3(Calls):
    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Any:
        return self.function(x, y, z)


@dataclass(frozen=True)
class PublishedBug:
    source: str
    """Where it was published: "pytorch #85316"."""
    make: Callable[[], nn.Module]
    example: Inputs
    edges: tuple[Inputs, ...] = ()
    """Beside the example: inputs at which the answers are held to eager's."""
    dynamic: Mapping[str, Mapping[int, str]] | None = None
    """The free axes; None is the first axis of every input."""
    refused: str = ""
    """Why our own ONNX export refuses it, where it does: never is it silently wrong."""
    spoilt: Callable[[Any], None] | None = None
    """What the published converter did wrong, done to the plain ONNX file, where the pinned exporter does not do it."""

    @property
    def axes(self) -> Mapping[str, Mapping[int, str]]:
        if self.dynamic is not None:
            return self.dynamic
        return {name: {0: "batch"} for name, tensor in zip("xyz", self.example, strict=False) if tensor.dim()}

    def module(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()


def bug(
    source: str,
    function: Function,
    *inputs: Inputs | Tensor,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    refused: str = "",
) -> PublishedBug:
    """The module of a function of the inputs; the first of `inputs` is the example. A tensor is one input."""
    given: Sequence[Inputs] = [value if isinstance(value, tuple) else (value,) for value in inputs]
    calls = (Calls1, Calls2, Calls3)[len(given[0]) - 1]
    return PublishedBug(source, lambda: calls(function), given[0], tuple(given[1:]), dynamic, refused)
