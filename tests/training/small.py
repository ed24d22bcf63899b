"""A training of seconds, and how to change it by dotted keys."""

from pathlib import Path
from typing import Any

from deploypipe.train import TrainConfig, configure

SMALL = {"model": "mlp", "data": "digits", "epochs": 2, "device": "cpu"}


def small(**settings: Any) -> TrainConfig:
    """`optimizer__lr=1` is optimizer.lr."""
    return configure(options=SMALL | {key.replace("__", "."): value for key, value in settings.items()})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run, without those that are written from elsewhere: the lock and TensorBoard's thread."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name != ".lock" and path.parent.name != "tensorboard"}  # fmt: skip
