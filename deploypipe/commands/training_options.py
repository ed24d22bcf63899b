"""A training's settings as options. The defaults that their help shows are those of the configuration."""

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from deploypipe.train import TrainConfig
from deploypipe.training.optim import RATES, SCHEDULES
from deploypipe.training.recipes import RECIPES

DEFAULTS = TrainConfig()


def _setting(key: str, help: str = "") -> Any:
    """An option that is one setting of a training; TrainConfig knows its default."""
    default = functools.reduce(getattr, key.split("."), DEFAULTS)
    shown = "" if default is None else f" [default: {default}]"
    return typer.Option(help=f"{help}{shown}".strip())


Recipe = Annotated[str | None, typer.Option(help=f"A set of settings: {', '.join(RECIPES)}. [default: the model's]")]
Config = Annotated[Path | None, typer.Option(help="A TOML file of settings, over the recipe's.")]
Set = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="One setting, over the file's: optimizer.lr=0.05.")
]
Model = Annotated[str | None, _setting("model", "A network of the zoo: see `deploypipe models`.")]
Data = Annotated[str | None, _setting("data", "A dataset: see `deploypipe datasets`.")]
Device = Annotated[str | None, _setting("device", "auto, cpu, cuda or mps.")]
Epochs = Annotated[float | None, _setting("epochs", "[default: as the dataset needs]")]
BatchSize = Annotated[int | None, _setting("batch_size")]
Optimizer = Annotated[str | None, _setting("optimizer.name", f"{', '.join(RATES)}. [default: the model's own]")]
LearningRate = Annotated[float | None, _setting("optimizer.lr", "The schedule's peak. [default: the optimizer's own]")]
Momentum = Annotated[float | None, _setting("optimizer.momentum", "SGD only.")]
Schedule = Annotated[str | None, _setting("schedule.name", ", ".join(SCHEDULES) + ".")]
L1 = Annotated[float | None, _setting("loss.l1", "L1 regularisation.")]
L2 = Annotated[float | None, _setting("optimizer.weight_decay", "L2 regularisation (weight decay).")]
Dropout = Annotated[float | None, _setting("dropout", "[default: the network's own]")]
Shift = Annotated[float | None, _setting("augment.shift", "Augmentation: move by up to so many pixels.")]
Rotate = Annotated[float | None, _setting("augment.rotate", "Augmentation: turn by up to so many degrees.")]
Scale = Annotated[float | None, _setting("augment.scale", "Augmentation: resize by up to this fraction.")]
Validation = Annotated[float | None, _setting("validation", "Fraction held back to validate on.")]
Patience = Annotated[int | None, _setting("patience", "Stop after so many epochs without a gain; 0: never.")]
CheckpointSteps = Annotated[
    int | None, _setting("checkpoint.every_steps", "Write a checkpoint after so many steps. [default: by time]")
]
CheckpointSeconds = Annotated[
    float | None, _setting("checkpoint.every_seconds", "Write a checkpoint after so many seconds.")
]
Seed = Annotated[int | None, _setting("seed")]

KEYS = {
    "optimizer": "optimizer.name",
    "learning_rate": "optimizer.lr",
    "momentum": "optimizer.momentum",
    "l2": "optimizer.weight_decay",
    "schedule": "schedule.name",
    "l1": "loss.l1",
    "shift": "augment.shift",
    "rotate": "augment.rotate",
    "scale": "augment.scale",
    "checkpoint_every_steps": "checkpoint.every_steps",
    "checkpoint_every_seconds": "checkpoint.every_seconds",
}
"""Options whose key in the configuration is another than their name."""
