"""A training of seconds, and how to change it by dotted keys."""

import multiprocessing
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from deploypipe.train import TrainConfig, configure

SMALL = {"model": "mlp", "data": "digits", "epochs": 2, "batch_size": 120, "device": "cpu", "precision": "float32",
         "optimizer.name": "adam", "optimizer.lr": 2e-3, "schedule.name": "one-cycle"}  # fmt: skip
"""Twelve steps an epoch, whatever the defaults are."""


def small(**settings: Any) -> TrainConfig:
    """`optimizer__lr=1` is optimizer.lr."""
    options = SMALL | {key.replace("__", "."): value for key, value in settings.items()}
    return configure(options=options)


def processes() -> ForkServerContext:
    """Forked from a process that has imported all of it, which takes longer than the work. Not from this one: what
    other tests left in it, autograd's threads above all, would not survive."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deploypipe.train", "torch.utils.tensorboard"])
    return context


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run, without those that are written from elsewhere: the lock and TensorBoard's thread."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name != ".lock" and path.parent.name != "tensorboard"}  # fmt: skip
