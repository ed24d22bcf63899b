"""One real TorchServe for the whole session: a small image classifier in every format, and a model of tensors."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from served_models import TIMEOUT, Classifier, Models, Pair
from support import made_once
from torch import Tensor, nn

import deploypipe
from deploypipe.archives.pack import build_archive
from deploypipe.capture import capture
from deploypipe.contract.server import Server
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.export import plan, write_proven
from deploypipe.formats import FORMATS
from deploypipe.parity.probes import image_probes
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.stopping import stop


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    torch.manual_seed(0)
    classifier = Classifier().eval()
    # Large weights: ten classes that differ clearly, as after training.
    with torch.no_grad():
        classifier.linear.weight.mul_(8)
    images = torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8)
    folder = made_once("artifacts", tmp_path_factory, lambda folder: export_models(classifier, images, folder))
    artifacts = {name: folder / f"classifier{entry.suffix}" for name, entry in FORMATS.items()}
    return Models(classifier, images, {**artifacts, "pair": folder / "pair.pt2"})


def export_models(classifier: nn.Module, images: Tensor, folder: Path) -> None:
    captured = capture(classifier, (images[:2],), {"pixels": {0: "batch"}}, ("logits",))
    for name, entry in FORMATS.items():
        path = folder / f"classifier{entry.suffix}"
        _, report = write_proven(plan(captured, image_probes(images), task=IMAGE_CLASSIFICATION), name, path)
        report.raise_if_failed()
    deploypipe.export(
        Pair(),
        (torch.randn(2, 3), torch.randn(3)),
        format="pt2",
        path=folder / "pair.pt2",
        dynamic={"x": {0: "batch"}},
        output_names=("scaled", "total"),
    )


@pytest.fixture(scope="session")
def store(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        for name, path in models.artifacts.items():
            build_archive(path, name, store=folder)

    # Some tests take an archive away: each process has a store of its own.
    return Path(shutil.copytree(made_once("store", tmp_path_factory, make), tmp_path_factory.mktemp("own") / "store"))


@pytest.fixture(scope="session")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    started = start(store, port=0, folder=folder, workers=1, timeout=TIMEOUT)
    yield started
    stop(folder=folder)
