"""A dataset by its name, or the one that a run was trained on."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from deploypipe.data.dataset import Dataset, digest_of_splits
from deploypipe.data.download import Unavailable
from deploypipe.data.sources import data_folder, source_of
from deploypipe.errors import DataError

if TYPE_CHECKING:
    from deploypipe.contract.run import Run


def load_dataset(name: str, folder: Path | None = None, warn: Callable[[str], None] = lambda message: None) -> Dataset:
    """The dataset `name`, read from `folder` or downloaded into it.

    "auto" is MNIST when it is there or can be downloaded, else the embedded digits; then `warn` gets a message.
    DataError when files are missing, damaged or mislabelled; UsageError for an unknown name.
    """
    folder = data_folder(folder)
    if name == "auto":
        try:
            return load_dataset("mnist", folder)
        except Unavailable as cause:
            warn(f"MNIST is not in {folder} and could not be downloaded ({cause.reason}): "
                 "using the embedded digits dataset (1,797 images) instead")  # fmt: skip
            return load_dataset("digits", folder)
    source = source_of(name)
    module, _, reader = source.reader.partition(":")
    train, test = getattr(import_module(module), reader)(folder)
    return Dataset(name, digest_of_splits(train, test), train, test, source.classes)


def dataset_of(run: "Run", folder: Path | None = None) -> Dataset | None:
    """The data that the run was trained on; None for a model that is not trained. DataError when it changed.

    `folder` says where it lies now; without it, it is where the run had it.
    """
    used = run.document["dataset"]
    if used is None:
        return None
    recorded = run.document["config"]["data_dir"]
    dataset = load_dataset(used["name"], folder or (Path(recorded) if recorded else None))
    if dataset.sha256 != used["sha256"]:
        raise DataError(f"the dataset {dataset.name} is not the one that {run.folder} was trained on: its sha256 "
                        "differs", "Point --data-dir at the folder that was used.")  # fmt: skip
    return dataset
