"""One real TorchServe for the whole session: a small image classifier in every format, and a model of tensors."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import deploypipe
from deploypipe.artifact import IMAGE_CLASSIFICATION
from deploypipe.capture import capture
from deploypipe.export import write_proven
from deploypipe.formats import FORMATS
from deploypipe.parity import image_probes
from deploypipe.serve import Server, package, start, stop

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


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    torch.manual_seed(0)
    classifier = Classifier().eval()
    # Large weights: ten classes that differ clearly, as after training.
    with torch.no_grad():
        classifier.linear.weight.mul_(8)
    images = torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8)
    captured = capture(classifier, (images[:2],), {"pixels": {0: "batch"}}, ("logits",))
    folder = tmp_path_factory.mktemp("artifacts")
    artifacts = {}
    for name, entry in FORMATS.items():
        path = folder / f"classifier{entry.suffix}"
        _, report = write_proven(captured, name, path, image_probes(images, (1, 3)), task=IMAGE_CLASSIFICATION)
        report.raise_if_failed()
        artifacts[name] = path
    pair = folder / "pair.pt2"
    deploypipe.export(
        Pair(),
        (torch.randn(2, 3), torch.randn(3)),
        format="pt2",
        path=pair,
        dynamic={"x": {0: "batch"}},
        output_names=("scaled", "total"),
    )
    return Models(classifier, images, {**artifacts, "pair": pair})


@pytest.fixture(scope="session")
def store(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for name, path in models.artifacts.items():
        package(path, name, store=folder)
    return folder


@pytest.fixture(scope="session")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    started = start(store, port=0, folder=folder, workers=1, timeout=TIMEOUT)
    yield started
    stop(folder=folder)


def png(pixels: Tensor) -> bytes:
    """uint8 [1, 28, 28] → a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels[0].numpy()).save(file, "PNG")
    return file.getvalue()


def npy(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()
