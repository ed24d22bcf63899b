"""A tiny classifier as a proven artifact in every format."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from without_server import Tiny

from deploypipe.capture import capture
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.export import plan, write_proven
from deploypipe.formats import FORMATS
from deploypipe.parity.probes import image_probes


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
        write_proven(plan(captured, image_probes(images), provenance, IMAGE_CLASSIFICATION), name, path)
    return {name: folder / f"tiny{entry.suffix}" for name, entry in FORMATS.items()}
