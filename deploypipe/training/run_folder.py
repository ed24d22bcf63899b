"""The run directory's files: whose they are, and how they are written.

A training deletes and overwrites only what is shown to be deploypipe's own: the files of a folder with the marker that
a training leaves first of all, with a valid run.json, or with a checkpoint.
"""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import nn

from deploypipe.contract.environment import git_commit, versions
from deploypipe.contract.run import RECORD, SCHEMA, WEIGHTS, Run, open_run
from deploypipe.data import Dataset
from deploypipe.errors import TrainingError, UsageError
from deploypipe.files import atomic_path, make_folder, sha256_file, write_json, writing
from deploypipe.training import checkpoint
from deploypipe.training.config import TrainConfig, decisive
from deploypipe.training.pictures import PICTURES

MARKER = ".deploypipe"
TENSORBOARD, SAMPLES, EXPORTS, PARITY = "tensorboard", "samples", "exports", "parity.json"
REPLACED = (RECORD, WEIGHTS, checkpoint.LAST, checkpoint.PREVIOUS, TENSORBOARD, SAMPLES, EXPORTS, PARITY, *PICTURES)
"""What a training deletes or overwrites in its folder."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """TrainingError where another training is within this block. A lock of the operating system, on every platform
    that filelock knows: it ends with its process, however that ends."""
    make_folder(folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError(f"another training is at work in {folder}", "Wait for it, or give another --out.") from None
    try:
        yield
    finally:
        lock.release()


def refuse_foreign(folder: Path) -> None:
    """UsageError where the folder has something that a training would replace and that is not shown to be a run's."""
    there = [name for name in REPLACED if (folder / name).exists()]
    if there and not _is_ours(folder):
        raise UsageError(f"{folder} is no run, but has {', '.join(there)}, which a training would replace",
                         "Give another --out.")  # fmt: skip


def claim(folder: Path) -> None:
    """From now on everything in the folder that a training replaces is deploypipe's own."""
    make_folder(folder)
    with writing(folder / MARKER):
        (folder / MARKER).touch()


def _is_ours(folder: Path) -> bool:
    if (folder / MARKER).is_file():
        return True
    try:
        open_run(folder)
    except UsageError:
        return unfinished(folder) is not None
    return True


def unfinished(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a training in `folder` that did not come to its end; None where there is no such."""
    try:
        saved = checkpoint.load_checkpoint(folder, lambda message: None)
    except TrainingError:
        return None
    return None if completed(folder, saved) else saved


def completed(folder: Path, saved: Mapping[str, Any]) -> Run | None:
    """The run in `folder`, if it is what this checkpoint led to: run.json is written when no epoch is left."""
    try:
        run = open_run(folder)
    except UsageError:
        return None
    same = (decisive(run.document["config"]), run.document["epochs"]) == (decisive(saved["config"]), saved["history"])
    return run if same and run.has_its_weights() else None


def forget_checkpoints(folder: Path) -> None:
    """What lies here of another training must never be taken for this one's."""
    checkpoint.remove(folder)
    shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)


def write_samples(dataset: Dataset, folder: Path) -> None:
    """The first test image of each class as a PNG, in the run directory `folder`."""
    if dataset.test.inputs.dtype != torch.uint8:
        return
    shutil.rmtree(folder / SAMPLES, ignore_errors=True)
    for label in range(len(dataset.classes)):
        first = (dataset.test.targets == label).nonzero()[0, 0]
        with atomic_path(folder / SAMPLES / f"{label}.png") as temporary:
            Image.fromarray(dataset.test.inputs[first, 0].numpy()).save(temporary)


def write_weights(folder: Path, module: nn.Module) -> str:
    """Their sha256."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    # Artifacts, verdicts and pictures of the weights that are replaced now would no longer be this run's.
    shutil.rmtree(folder / EXPORTS, ignore_errors=True)
    for name in (PARITY, *PICTURES):
        (folder / name).unlink(missing_ok=True)
    path = folder / WEIGHTS
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_safetensors(weights))
    return sha256_file(path)


def write_run(folder: Path, config: TrainConfig, weights_sha256: str, facts: Mapping[str, Any]) -> Run:
    """run.json, when the files that it speaks of are there: a folder that has it is complete."""
    document = {
        "schema": SCHEMA,
        "model": config.model,
        "config": dataclasses.asdict(config),
        "seed": config.seed,
        "weights_sha256": weights_sha256,
        "versions": versions(),
        "git_commit": git_commit(),
        **facts,
    }
    write_json(folder / RECORD, document)
    return open_run(folder)
