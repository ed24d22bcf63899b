"""Datasets that need no files. Each function takes the data folder, as every reader does, and does not use it."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from deploypipe.data.dataset import Split


def digits(folder: Path) -> tuple[Split, Split]:
    """scikit-learn's 1,797 handwritten digits, 8×8 with 17 grey levels: enlarged to 20×20 and centred in 28×28 as
    MNIST's are; one image in five, drawn with a fixed seed, is for testing."""
    rows = np.loadtxt(_scikit_learns("datasets/data/digits.csv.gz"), delimiter=",")
    pixels, classes = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1]
    small = torch.from_numpy(pixels).float() * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = torch.nn.functional.pad(large.round().clamp(0, 255).to(torch.uint8), (4, 4, 4, 4))
    labels = torch.from_numpy(classes).long()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return Split(images[train], labels[train]), Split(images[test], labels[test])


def _scikit_learns(path: str) -> Path:
    """A file of scikit-learn's, which is not imported: that takes as long as importing torch."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("scikit-learn is not installed", name="sklearn")
    return Path(package.origin).parent / path


def line(folder: Path) -> tuple[Split, Split]:
    """y = 2x on [-1, 1]: `float32 [n, 1]` both."""
    train, test = torch.linspace(-1, 1, 1000).unsqueeze(1), torch.linspace(-0.999, 0.999, 200).unsqueeze(1)
    return Split(train, 2 * train), Split(test, 2 * test)


def sentences(folder: Path) -> tuple[Split, Split]:
    """Sequences of 11 tokens (`int64 [n, 11]`, 0..99), drawn with a fixed seed; the class is whether most of them are
    50 or more."""
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 100, (5000, 11)))
    labels = ((tokens >= 50).sum(dim=1) > 5).long()
    return Split(tokens[1000:], labels[1000:]), Split(tokens[:1000], labels[:1000])
