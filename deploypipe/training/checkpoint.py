"""A training's state as a file that describes itself and loads with `weights_only=True`.

checkpoint.pt            the last one, the best weights of a validated training in it
checkpoint.previous.pt   the one before, for when the last is damaged
"""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import msgspec
import torch

from deploypipe.errors import TrainingError, first_line
from deploypipe.files import atomic_path

SCHEMA = "deploypipe.checkpoint/2"
LAST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
AGAIN = "Start over with --fresh."


class UsedData(TypedDict):
    name: str
    sha256: str


class UsedVersions(TypedDict):
    torch: str


class State(TypedDict):
    """What a checkpoint must have."""

    config: dict[str, Any]
    dataset: UsedData
    device: str
    launch_id: NotRequired[str | None]
    """torchrun's name for the start that wrote it."""
    versions: UsedVersions
    epoch: int
    step: int
    metrics: dict[str, Any]
    seconds: float
    history: list[dict[str, Any]]
    module: dict[str, Any]
    optimizer: dict[str, Any]
    losses: torch.Tensor
    hits: torch.Tensor
    average: dict[str, Any] | None
    best: dict[str, Any] | None
    best_loss: float
    epochs_without_gain: int


def save(folder: Path, document: dict[str, Any]) -> None:
    """In place of the last, which becomes the previous one. `Unwritable` leaves both as they were."""
    content = io.BytesIO()  # torch's own writing would raise a RuntimeError for a full disk
    torch.save({"schema": SCHEMA, **document}, content)
    path = folder / LAST
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            os.fsync(file.fileno())  # it must be on the disk before the last one is renamed
        if path.exists():
            path.replace(folder / PREVIOUS)


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """What is in the newest checkpoint of `folder` that is whole. TrainingError where there is none."""
    paths = [path for path in (folder / LAST, folder / PREVIOUS) if path.exists()]
    if not paths:
        raise TrainingError(f"{folder / LAST} does not exist", AGAIN)
    problems = []
    for path in paths:
        try:
            document = _read(path)
        except Exception as cause:  # whatever unpickling makes of damaged bytes
            problems.append(f"{path} cannot be resumed: {first_line(cause)}")
            continue
        for problem in problems:
            warn(f"{problem}. Going on from {path.name}, step {document['step']}")
        return document
    raise TrainingError("; ".join(problems), AGAIN)


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        # torch.load does not look at the checksums that torch.save writes.
        if damaged := archive.testzip():
            raise ValueError(f"its {damaged} is damaged")
    document = torch.load(path, map_location="cpu", weights_only=True)
    found = document.get("schema") if isinstance(document, dict) else None
    if found != SCHEMA:
        raise ValueError(f"it is not a {SCHEMA!r} file (its schema is {found!r})")
    msgspec.convert(document, State)
    return dict(document)


def remove(folder: Path) -> None:
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def newest(root: Path) -> Path:
    """The folder below `root` with the newest checkpoint. TrainingError where there is none.

    A crash between the two renames of `save` leaves the previous checkpoint alone.
    """
    found = [path for name in (LAST, PREVIOUS) for path in root.glob(f"*/{name}")]
    if not found:
        raise TrainingError(f"no checkpoint in {root.resolve()} to resume from", "Start with `deploypipe train`.")
    return max(found, key=lambda path: path.stat().st_mtime).parent
