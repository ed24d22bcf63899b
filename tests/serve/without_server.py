"""A tiny classifier, and TorchServe's side of a handler."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.linear(pixels.flatten(1) / 255)


@dataclass
class Context:
    """What TorchServe's context offers a handler, and what the handler did with it."""

    manifest: dict[str, Any]
    system_properties: dict[str, Any]
    statuses: dict[int, int] = field(default_factory=dict)
    content_types: dict[int, str] = field(default_factory=dict)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        assert phrase.isascii()
        self.statuses[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.content_types[idx] = value
