"""The datasets by name: what they are, and where they lie. Reading this needs no torch: what reads a dataset is
imported when it is loaded."""

import os
from dataclasses import dataclass
from pathlib import Path

from deploypipe.errors import UsageError

ROOM = "deploypipe.data"


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from."""

    summary: str
    reader: str
    """`package.module:name` of a function that takes the data folder and returns the training and the test split."""
    classes: tuple[str, ...]
    """Class names in label order; empty for a regression."""
    epochs: int
    """How many epochs a training takes unless another number is given; small sets need more."""
    first_file: str | None = None
    """A file in the data folder that is there when the dataset is; None for a dataset that needs no files."""

    def is_present(self, folder: Path) -> bool:
        return self.first_file is None or (folder / self.first_file).is_file()


DIGITS = tuple(str(digit) for digit in range(10))
GARMENTS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

DATASETS: dict[str, Source] = {
    "mnist": Source(
        "70,000 handwritten digits, 28×28",
        f"{ROOM}.idx:read_mnist",
        DIGITS,
        epochs=2,
        first_file="MNIST/raw/train-images-idx3-ubyte",
    ),
    "fashion-mnist": Source(
        "70,000 garments, 28×28",
        f"{ROOM}.idx:read_fashion_mnist",
        GARMENTS,
        epochs=2,
        first_file="FashionMNIST/raw/train-images-idx3-ubyte",
    ),
    "digits": Source(
        "1,797 handwritten digits, embedded, needs no network", f"{ROOM}.embedded:digits", DIGITS, epochs=15
    ),
    "sentences": Source(
        "5,000 token sequences, made here, for the recurrent network",
        f"{ROOM}.embedded:sentences",
        ("low", "high"),
        epochs=15,
    ),
    "line": Source("y = 2x, for the regression", f"{ROOM}.embedded:line", (), epochs=20),
}


def source_of(name: str) -> Source:
    """UsageError, with the names that there are, for another one."""
    if name not in DATASETS:
        raise UsageError(f"no dataset {name!r}", f"There are: {', '.join(DATASETS)}.")
    return DATASETS[name]


def data_folder(given: Path | None = None) -> Path:
    """`given`, else $DEPLOYPIPE_DATA_DIR, else the user's cache folder."""
    if given is not None:
        return given
    if named := os.environ.get("DEPLOYPIPE_DATA_DIR"):
        return Path(named)
    import platformdirs  # which a machine that names its folder need not have

    return Path(platformdirs.user_cache_path("deploypipe") / "data")
