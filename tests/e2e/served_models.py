"""What the served models are, what eager says of them, and how images become bodies."""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from deploypipe.archives.pack import build_archive
from deploypipe.contract.archive import MANIFEST, Archive, read_archive
from deploypipe.contract.records import from_document, to_document
from deploypipe.contract.sample import Sample
from deploypipe.formats import FORMATS

TIMEOUT = 600.0
"""Seconds for what takes one to forty where nothing else runs: a machine with both cores taken needs several times as
long, and no test waits for longer than it has to."""
IMAGE_MODELS = tuple(FORMATS)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 5, stride=2)
        self.linear = nn.Linear(4 * 12 * 12, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.linear(torch.relu(self.convolution(pixels / 255)).flatten(1))


class SlowClassifier(nn.Module):
    """Some dozens of images a second on one core, so that asking for several times as many costs a client little."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 64, 3, padding=1)
        self.again = nn.Conv2d(64, 64, 3, padding=1)
        self.linear = nn.Linear(64, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.first(pixels / 255)
        for _ in range(12):
            features = features + torch.relu(self.again(features))
        return self.linear(features.mean((2, 3)))


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


def packed_with_wrong_samples(artifact: Path, name: str, version: str, store: Path) -> Archive:
    """An archive whose samples are not what its model answers. `package` would refuse it, so it is changed afterwards,
    with the digests that its manifest must have for that."""
    path = build_archive(artifact, name, version, store).path
    with zipfile.ZipFile(path) as file:
        entries = {entry: file.read(entry) for entry in file.namelist()}
    manifest = json.loads(entries[MANIFEST])
    facts = manifest["deploypipe"]
    sidecar = json.loads(entries[facts["sidecar"]])
    samples = from_document(sidecar["samples"], Sample)
    wrong = Sample.of(samples.inputs, [output + np.float32(0.01) for output in samples.outputs])
    entries[facts["sidecar"]] = json.dumps(sidecar | {"samples": to_document(wrong)}).encode()
    facts["sha256"][facts["sidecar"]] = hashlib.sha256(entries[facts["sidecar"]]).hexdigest()
    entries[MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as file:
        for entry, content in entries.items():
            file.writestr(entry, content)
    return read_archive(path)


def png(pixels: Tensor) -> bytes:
    """uint8 [1, 28, 28] → a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels[0].numpy()).save(file, "PNG")
    return file.getvalue()


def npy(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()
