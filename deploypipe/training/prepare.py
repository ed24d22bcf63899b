"""What a training is really of: the data, the device, and a configuration that leaves nothing to the model or the data.

The processes of a group agree on it. Its leader decides what "auto" is, and the digests of the data that each process
has are compared: two machines must not train on different data.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from deploypipe.contract.run import ROOT
from deploypipe.data import Dataset, load_dataset, source_of
from deploypipe.errors import DataError, TrainingError, UsageError, first_line
from deploypipe.models.zoo import entry_of
from deploypipe.training import checkpoint, parsing
from deploypipe.training.config import TrainConfig
from deploypipe.training.device import resolve_device, resolve_precision
from deploypipe.training.distributed import Group

Warn = Callable[[str], None]


def prepare(config: TrainConfig, warn: Warn, group: Group) -> tuple[TrainConfig, Dataset, torch.device]:
    """UsageError for a dataset that the network does not train on and for a device that is not there, DataError for
    the data."""
    entry = entry_of(config.model)
    wanted = entry.datasets[0] if config.data == "auto" else config.data
    if wanted not in entry.datasets:
        raise UsageError(f"{config.model} does not train on {wanted!r}", f"It trains on: {', '.join(entry.datasets)}.")
    device = resolve_device(config.device)
    # Later verbs may run in another folder. On each machine the data may lie elsewhere.
    folder = Path(config.data_dir).resolve() if config.data_dir else None
    chosen: list[Dataset] = []

    def decided() -> tuple[str, str]:
        chosen.append(load_dataset(wanted, folder, warn))
        return chosen[0].name, resolve_precision(config.precision, device)

    name, precision = group.from_leader(decided)
    with group.one_before_the_others():
        dataset = chosen[0] if chosen else load_dataset(name, folder, warn)
    _compare(dataset, group)
    epochs = config.examples / len(dataset.train) if config.examples else source_of(name).epochs
    config = dataclasses.replace(
        config,
        data=name,
        data_dir=str(folder) if folder else None,
        epochs=float(config.epochs or epochs),
        precision=precision,
        optimizer=dataclasses.replace(config.optimizer, name=config.optimizer.name or entry.optimizer),
    )
    return config, dataset, group.place(device)


def _compare(dataset: Dataset, group: Group) -> None:
    """DataError, in all processes, unless each of them has the same data."""
    digests = group.from_each(dataset.sha256)
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise DataError(
            f"the processes of this training have different data: the sha256 of {dataset.name} in process "
            f"{', '.join(map(str, others))} is not that of process 0",
            "Give each machine the same files.",
        )


def run_folder_of(config: TrainConfig) -> Path:
    return ROOT / f"{config.model}-{config.data}"


def resumed_config(saved: dict[str, Any], folder: Path, given: TrainConfig) -> TrainConfig:
    """The configuration in a checkpoint; the data folder and the device are the `given` ones where these say which.
    TrainingError for one of another version."""
    try:
        config = parsing.as_dataclass(TrainConfig, saved["config"], whole=True)
        entry_of(config.model)
    except UsageError as cause:
        path = folder / checkpoint.LAST
        raise TrainingError(f"{path} cannot be resumed: {first_line(cause)}", checkpoint.AGAIN) from cause
    device = config.device if given.device == TrainConfig.device else given.device
    return dataclasses.replace(config, data_dir=given.data_dir or config.data_dir, device=device)
