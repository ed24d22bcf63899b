"""A small classifier as a proven artifact, and TorchServe's side of a handler, without a server."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploypipe.artifact import IMAGE_CLASSIFICATION
from deploypipe.capture import capture
from deploypipe.export import write_proven
from deploypipe.formats import FORMATS
from deploypipe.parity import image_probes


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


@pytest.fixture(scope="session")
def images() -> Tensor:
    """uint8 [16, 1, 28, 28]"""
    return torch.randint(0, 256, (16, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Tiny().eval()


@pytest.fixture(scope="session")
def artifacts(network: nn.Module, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    captured = capture(network, (images[:2],), {"pixels": {0: "batch"}}, ("logits",))
    for name, entry in FORMATS.items():
        path = folder / f"tiny{entry.suffix}"
        provenance = {"weights_sha256": "a" * 64}
        write_proven(captured, name, path, image_probes(images, (1,)), provenance, IMAGE_CLASSIFICATION)
    return {name: folder / f"tiny{entry.suffix}" for name, entry in FORMATS.items()}
