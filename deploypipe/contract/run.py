"""The run directory: what a training leaves, and the only thing that later verbs read of it.

run.json              configuration, dataset, versions, metrics per epoch, the weights' sha256
weights.safetensors   the trained weights
checkpoint.pt         to resume from
exports/              artifacts and their sidecars
parity.json           the last verification
tensorboard/          loss and accuracy curves

Reading the record needs no torch. `deploypipe.models.trained` loads the weights, `deploypipe.data` the dataset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import msgspec

from deploypipe.errors import UsageError
from deploypipe.files import read_json, sha256_file

SCHEMA = "deploypipe.run/1"
ROOT = Path("runs")
RECORD, WEIGHTS = "run.json", "weights.safetensors"


class UsedDataset(TypedDict):
    name: str
    sha256: str
    train: int
    validation: int
    test: int
    classes: list[str]


class UsedConfig(TypedDict):
    """The one setting that later verbs read; the others belong to the training."""

    data_dir: str | None


class TestMetrics(TypedDict):
    """A classification has an accuracy, a regression a mean squared error."""

    examples: int
    accuracy: NotRequired[float]
    mean_squared_error: NotRequired[float]


class Document(TypedDict):
    """What run.json must have. Other fields may be there too."""

    model: str
    config: UsedConfig
    seed: int
    dataset: UsedDataset | None
    epochs: list[dict[str, Any]]
    metrics: dict[str, Any]
    weights_sha256: str
    device: str
    seconds: float
    versions: dict[str, str]
    git_commit: str | None


@dataclass(frozen=True)
class Run:
    folder: Path
    document: Mapping[str, Any]
    """run.json."""

    @property
    def model(self) -> str:
        return str(self.document["model"])

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def exports(self) -> Path:
        return self.folder / "exports"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def parity(self) -> Path:
        return self.folder / "parity.json"

    def artifacts(self) -> list[Path]:
        """The artifacts of this run, those with a sidecar; those of lower precision, `model.int8.onnx`, come last."""
        sidecars = sorted(self.exports.glob("*.json"), key=lambda path: (path.name.count("."), path.name))
        return [sidecar.with_suffix("") for sidecar in sidecars if sidecar.with_suffix("").is_file()]

    def has_its_weights(self) -> bool:
        return self.weights.is_file() and sha256_file(self.weights) == self.document["weights_sha256"]

    def provenance(self) -> dict[str, Any]:
        """What an artifact of this run carries of it."""
        kept = ("model", "dataset", "seed", "versions", "git_commit", "weights_sha256")
        # Where the data lies on this machine says nothing to whoever gets the artifact; its sha256 does.
        config = {key: value for key, value in self.document["config"].items() if key != "data_dir"}
        return {key: self.document[key] for key in kept} | {"config": config}


def open_run(folder: Path | None = None, root: Path = ROOT) -> Run:
    """The run in `folder`, or the newest one below `root`. UsageError where there is none or its record is damaged."""
    remedy = "Train one: `deploypipe train`."
    if folder is None:
        found = sorted(root.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UsageError(f"no run in {root.resolve()}", remedy)
        folder = found[-1].parent
    path = folder / RECORD
    document = read_json(path, SCHEMA, UsageError, remedy)
    try:
        _check(document)
    except ValueError as cause:
        raise UsageError(f"{path} is damaged: {cause}", remedy) from cause
    return Run(folder, document)


def _check(document: dict[str, Any]) -> None:
    """ValueError, saying which field, unless the document is the record of a run."""
    msgspec.convert(document, Document)
    if document["dataset"] is None:
        if document["metrics"]:
            raise ValueError("it has metrics, but no `dataset`")
        return
    try:
        metrics = msgspec.convert(document["metrics"], TestMetrics)
    except msgspec.ValidationError as cause:
        raise ValueError(f"`metrics`: {cause}") from cause
    if "accuracy" not in metrics and "mean_squared_error" not in metrics:
        raise ValueError("`metrics` has neither `accuracy` nor `mean_squared_error`")


def run_of(folder: Path | None, artifact: Path | None) -> Run:
    """The run in `folder`; else the one that `artifact` lies in; else the newest."""
    return open_run(folder or (folder_of(artifact) if artifact else None))


def folder_of(artifact: Path) -> Path | None:
    """The run that the artifact lies in."""
    folder = artifact.parent.parent
    return folder if (folder / RECORD).is_file() else None
