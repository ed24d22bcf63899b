"""Datasets as tensors in memory: images are `uint8 [n, 1, 28, 28]`, 0..255, light on black; labels are `int64 [n]`."""

import contextlib
import hashlib
import io
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deploypipe.errors import DataError, UsageError
from deploypipe.files import sha256_file

if TYPE_CHECKING:
    from deploypipe.contract.run import Run

DOWNLOAD_TIMEOUT = 10.0
"""Seconds that one network operation may take before a download counts as failed."""


@dataclass(frozen=True)
class Split:
    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Dataset:
    name: str
    sha256: str
    """Over every tensor's bytes: what was really used, whatever file it came from."""
    train: Split
    test: Split
    classes: tuple[str, ...]
    """Class names in label order; empty for a regression."""


@dataclass(frozen=True)
class Source:
    """A registry entry: where a dataset comes from. `load` takes the data folder and whether it may download."""

    summary: str
    load: Callable[[Path, bool], tuple[Split, Split]]
    classes: tuple[str, ...]
    epochs: int
    """How many epochs a training takes unless told otherwise; small sets need more."""
    present: Callable[[Path], bool] = lambda folder: True


def data_folder(given: Path | None = None) -> Path:
    """`given`, else $DEPLOYPIPE_DATA_DIR, else the user's cache folder."""
    if given is not None:
        return given
    if named := os.environ.get("DEPLOYPIPE_DATA_DIR"):
        return Path(named)
    import platformdirs  # which a machine that names its folder need not have

    return Path(platformdirs.user_cache_path("deploypipe") / "data")


def load(name: str, folder: Path | None = None, warn: Callable[[str], None] = lambda message: None) -> Dataset:
    """The dataset `name`, read from `folder` or downloaded into it.

    "auto" is MNIST when it is there or can be downloaded, else the embedded digits, said through `warn`.
    DataError when files are missing, damaged or mislabelled; UsageError for an unknown name.
    """
    folder = data_folder(folder)
    if name == "auto":
        try:
            return load("mnist", folder)
        except Unavailable as cause:
            warn(f"MNIST is not in {folder} and could not be downloaded ({cause.reason}): "
                 "using the embedded digits dataset (1,797 images) instead")  # fmt: skip
            return load("digits", folder)
    source = source_of(name)
    train, test = source.load(folder, True)
    return Dataset(name, _digest(train, test), train, test, source.classes)


def dataset_of(run: "Run", folder: Path | None = None) -> Dataset | None:
    """The data that the run was trained on; None for a model that is not trained. DataError when it changed.

    `folder` says where it lies now; without it, it is where the run had it.
    """
    used = run.document["dataset"]
    if used is None:
        return None
    recorded = run.document["config"]["data_dir"]
    dataset = load(used["name"], folder or (Path(recorded) if recorded else None))
    if dataset.sha256 != used["sha256"]:
        raise DataError(f"the dataset {dataset.name} is not the one that {run.folder} was trained on: its sha256 "
                        "differs", "Point --data-dir at the folder that was used.")  # fmt: skip
    return dataset


def source_of(name: str) -> Source:
    if name not in DATASETS:
        raise UsageError(f"no dataset {name!r}", f"There are: {', '.join(DATASETS)}.")
    return DATASETS[name]


def _digest(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for tensor in (split.inputs, split.targets):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


# --- The MNIST family: four IDX files -------------------------------------------------------------------------------

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
CHECKSUMS = "SHA256SUMS"
"""Written beside files whose unpacked digests nobody publishes, when a download with published digests was unpacked."""


class Unavailable(DataError):
    """A dataset is not in the data folder and could not be downloaded."""

    def __init__(self, what: str, folder: Path, reason: str) -> None:
        super().__init__(
            f"{what} is not in {folder} and could not be downloaded: {reason}",
            "Give the folder that has it with --data-dir, or use --data digits, which needs no network.",
        )
        self.reason = reason


def _idx_source(summary: str, torchvision_name: str, classes: tuple[str, ...], known: Mapping[str, str]) -> Source:
    def raw(folder: Path) -> Path:
        return folder / torchvision_name / "raw"

    def read(folder: Path, download: bool) -> tuple[Split, Split]:
        if not any((raw(folder) / name).exists() for name in SHAPES):
            if not download:
                raise Unavailable(torchvision_name, folder, "not asked to")
            _download(torchvision_name, folder)
        expected = known or _recorded_checksums(raw(folder))
        tensors = {name: _read_idx(raw(folder) / name, expected) for name in SHAPES}
        return (
            Split(tensors[TRAIN_IMAGES].unsqueeze(1), tensors[TRAIN_LABELS].long()),
            Split(tensors[TEST_IMAGES].unsqueeze(1), tensors[TEST_LABELS].long()),
        )

    return Source(summary, read, classes, epochs=2, present=lambda folder: (raw(folder) / TRAIN_IMAGES).is_file())


def _download(torchvision_name: str, folder: Path) -> None:
    """Through torchvision, which checks the packed files; unpacked elsewhere first, so that no half set is left."""
    from torchvision import datasets

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch, _network_timeout():
            # torchvision prints its progress, but standard output belongs to the result.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                getattr(datasets, torchvision_name)(scratch, download=True)
            unpacked = Path(scratch) / torchvision_name / "raw"
            lines = [f"{sha256_file(unpacked / name)}  {name}\n" for name in SHAPES]
            (unpacked / CHECKSUMS).write_text("".join(lines))
            final = folder / torchvision_name / "raw"
            final.mkdir(parents=True, exist_ok=True)
            for name in (*SHAPES, CHECKSUMS):
                shutil.move(unpacked / name, final / name)
    except Exception as cause:
        # Whatever a network, a proxy's answer or half a file makes of it; torchvision says the reason last.
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[-1]
        raise Unavailable(torchvision_name, folder, reason) from cause


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _recorded_checksums(raw: Path) -> dict[str, str]:
    try:
        lines = (raw / CHECKSUMS).read_text().splitlines()
    except OSError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


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


# --- Datasets that need no files ------------------------------------------------------------------------------------


def _digits(folder: Path, download: bool) -> tuple[Split, Split]:
    """scikit-learn's 1,797 handwritten digits, 8×8 with 17 grey levels: enlarged to 20×20 and centred in 28×28 as
    MNIST's are; one image in five, drawn with a fixed seed, is for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = torch.nn.functional.pad(large.round().clamp(0, 255).to(torch.uint8), (4, 4, 4, 4))
    labels = torch.from_numpy(digits.target).long()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return Split(images[train], labels[train]), Split(images[test], labels[test])


def _line(folder: Path, download: bool) -> tuple[Split, Split]:
    """y = 2x on [-1, 1]: `float32 [n, 1]` both."""
    train, test = torch.linspace(-1, 1, 1000).unsqueeze(1), torch.linspace(-0.999, 0.999, 200).unsqueeze(1)
    return Split(train, 2 * train), Split(test, 2 * test)


def _sentences(folder: Path, download: bool) -> tuple[Split, Split]:
    """Sequences of 11 tokens (`int64 [n, 11]`, 0..99), drawn with a fixed seed; the class is whether most of them are
    50 or more."""
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 100, (5000, 11)))
    labels = ((tokens >= 50).sum(dim=1) > 5).long()
    return Split(tokens[1000:], labels[1000:]), Split(tokens[:1000], labels[:1000])


DIGITS = tuple(str(digit) for digit in range(10))
GARMENTS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

DATASETS: dict[str, Source] = {
    "mnist": _idx_source("70,000 handwritten digits, 28×28", "MNIST", DIGITS, MNIST_SHA256),
    "fashion-mnist": _idx_source("70,000 garments, 28×28", "FashionMNIST", GARMENTS, {}),
    "digits": Source("1,797 handwritten digits, embedded, needs no network", _digits, DIGITS, epochs=15),
    "sentences": Source(
        "5,000 token sequences, made here, for the recurrent network", _sentences, ("low", "high"), epochs=15
    ),
    "line": Source("y = 2x, for the regression", _line, (), epochs=20),
}
