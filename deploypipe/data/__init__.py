"""Datasets as tensors in memory: images are `uint8 [n, 1, 28, 28]`, 0..255, light on black; labels are `int64 [n]`.

dataset.py    what a dataset is, and its digest
download.py   one process downloads, and what is there is whole
embedded.py   datasets that need no files
idx.py        the MNIST family: four IDX files
retrieval.py  a dataset by its name, or the one of a run
sources.py    the datasets by name, and where they lie; read without torch

Importing this package imports no torch: the names that need it are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deploypipe.data.sources import DATASETS, Source, data_folder, source_of

if TYPE_CHECKING:
    from deploypipe.data.dataset import Dataset, Split
    from deploypipe.data.retrieval import dataset_of, load_dataset

__all__ = ["DATASETS", "Dataset", "Source", "Split", "data_folder", "dataset_of", "load_dataset", "source_of"]

_HOMES = {"Dataset": "dataset", "Split": "dataset", "dataset_of": "retrieval", "load_dataset": "retrieval"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
