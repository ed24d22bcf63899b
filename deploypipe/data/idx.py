"""The MNIST family: four IDX files (http://yann.lecun.com/exdb/mnist/), in torchvision's layout."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deploypipe.data.dataset import Split
from deploypipe.data.download import download, files_of, recorded_checksums
from deploypipe.errors import DataError

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
SHAPES = {
    TRAIN_IMAGES: (60000, 28, 28),
    TRAIN_LABELS: (60000,),
    TEST_IMAGES: (10000, 28, 28),
    TEST_LABELS: (10000,),
}
MNIST_SHA256 = {
    TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read_mnist(folder: Path) -> tuple[Split, Split]:
    return _read("MNIST", folder, MNIST_SHA256)


def read_fashion_mnist(folder: Path) -> tuple[Split, Split]:
    return _read("FashionMNIST", folder, {})


def _read(name: str, folder: Path, known: Mapping[str, str]) -> tuple[Split, Split]:
    """The splits of torchvision's dataset `name`, downloaded where none of its files is there. `known`: published
    digests; without them those count that the download left."""
    raw = files_of(name, folder)
    if not any((raw / file).exists() for file in SHAPES):
        download(name, folder, tuple(SHAPES), known)
    expected = known or recorded_checksums(raw)
    tensors = {file: _read_idx(raw / file, expected) for file in SHAPES}
    return (
        Split(tensors[TRAIN_IMAGES].unsqueeze(1), tensors[TRAIN_LABELS].long()),
        Split(tensors[TEST_IMAGES].unsqueeze(1), tensors[TEST_LABELS].long()),
    )


def _read_idx(path: Path, expected: Mapping[str, str]) -> Tensor:
    """One IDX file (http://yann.lecun.com/exdb/mnist/): big-endian magic 0x08 and rank, sizes, then bytes."""
    remedy = f"Delete {path.parent} and run again to download it anew."
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise DataError(f"{path} cannot be read: {cause.strerror}", remedy) from cause
    digest = hashlib.sha256(content).hexdigest()
    for other, known in expected.items():
        if digest == known and other != path.name:
            raise DataError(f"{path} is mislabelled: it holds {other}", remedy)
    shape = SHAPES[path.name]
    header = 4 + 4 * len(shape)
    if content[:4] != bytes((0, 0, 8, len(shape))):
        raise DataError(f"{path} is no IDX file of {len(shape)} axes: it starts with {content[:4].hex() or 'nothing'}, "
                        f"not 0000080{len(shape)}", remedy)  # fmt: skip
    # Cut inside its header, a file has no sizes to read.
    sizes = tuple(np.frombuffer(content[4:header], dtype=">u4").tolist()) if len(content) >= header else ()
    if sizes != shape or len(content) != header + int(np.prod(shape)):
        raise DataError(
            f"{path} is truncated or of another size: {len(content):,} bytes with axes {list(sizes)}, "
            f"expected {header + int(np.prod(shape)):,} with {list(shape)}",
            remedy,
        )
    if digest != expected.get(path.name, digest):
        raise DataError(f"{path} is corrupt: sha256 {digest[:16]}…, expected {expected[path.name][:16]}…", remedy)
    values = np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
    if len(shape) == 1 and (np.bincount(values, minlength=10)[10:].any() or len(np.unique(values)) != 10):
        raise DataError(f"{path} is mislabelled: labels must be 0 to 9, each of them present", remedy)
    return torch.from_numpy(values.copy())
