"""The run directory: what a training leaves, and the only thing that later verbs read of it.

run.json              configuration, dataset, versions, metrics per epoch, the weights' sha256
weights.safetensors   the trained weights
checkpoint.pt         to resume from
exports/              artifacts and their sidecars
parity.json           the last verification
tensorboard/          loss and accuracy curves
"""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from deploypipe.data import Dataset, load
from deploypipe.errors import DataError, TrainingError, UsageError, first_line
from deploypipe.files import check_shape, read_json, sha256_file
from deploypipe.models import Entry, entry_of

SCHEMA = "deploypipe.run/1"
ROOT = Path("runs")
DOCUMENT = {
    "model": str,
    "config": {"data_dir": str | None},
    "seed": int,
    "dataset": dict | None,
    "epochs": [dict],
    "metrics": dict,
    "weights_sha256": str,
    "device": str,
    "seconds": float | int,
    "versions": dict,
    "git_commit": str | None,
}
DATASET = {"name": str, "sha256": str, "train": int, "validation": int, "test": int, "classes": [str]}
"""Of a model that is trained; its metrics are one of these."""
METRICS = ({"examples": int, "accuracy": float | int}, {"examples": int, "mean_squared_error": float | int})


@dataclass(frozen=True)
class Run:
    folder: Path
    document: Mapping[str, Any]
    """run.json."""

    @property
    def model(self) -> str:
        return str(self.document["model"])

    @property
    def entry(self) -> Entry:
        return entry_of(self.model)

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
        path = self.folder / "weights.safetensors"
        return path.is_file() and sha256_file(path) == self.document["weights_sha256"]

    def load_module(self) -> nn.Module:
        """The trained module, eager, on the CPU, in eval mode. TrainingError when the weights are not this run's."""
        path = self.folder / "weights.safetensors"
        if not self.has_its_weights():
            raise TrainingError(
                f"{path} is missing or is not what this run trained", "Train again: `deploypipe train`."
            )
        module = self.entry.build()
        try:
            module.load_state_dict(load_file(path))
        except (OSError, RuntimeError, SafetensorError) as cause:
            raise TrainingError(
                f"{path} does not fit {self.model}: {first_line(cause)}", "Train again: `deploypipe train`."
            ) from cause
        return module.eval()

    def dataset(self, data_dir: Path | None = None) -> Dataset | None:
        """The data that the run was trained on; None for a model that is not trained. DataError when it changed."""
        used = self.document["dataset"]
        if used is None:
            return None
        recorded = self.document["config"]["data_dir"]
        dataset = load(used["name"], data_dir or (Path(recorded) if recorded else None))
        if dataset.sha256 != used["sha256"]:
            raise DataError(f"the dataset {dataset.name} is not the one that {self.folder} was trained on: its sha256 "
                            "differs", "Point --data-dir at the folder that was used.")  # fmt: skip
        return dataset

    def provenance(self) -> dict[str, Any]:
        """What an artifact of this run carries of it."""
        kept = ("model", "dataset", "seed", "versions", "git_commit", "weights_sha256")
        # Where the data lies on this machine says nothing to whoever gets the artifact; its sha256 does.
        config = {key: value for key, value in self.document["config"].items() if key != "data_dir"}
        return {key: self.document[key] for key in kept} | {"config": config}


def open_run(folder: Path | None = None, root: Path = ROOT) -> Run:
    """The run in `folder`, or the newest one below `root`. UsageError where there is none."""
    remedy = "Train one: `deploypipe train`."
    if folder is None:
        found = sorted(root.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UsageError(f"no run in {root.resolve()}", remedy)
        folder = found[-1].parent
    path = folder / "run.json"
    document = read_json(path, SCHEMA, UsageError, remedy, DOCUMENT)
    try:
        entry = entry_of(document["model"])
        if bool(entry.datasets) != bool(document["dataset"]):
            raise ValueError(f"its dataset does not go with {document['model']}")
        if document["dataset"]:
            check_shape(document["dataset"], DATASET, "dataset")
            check_shape(document["metrics"], METRICS["accuracy" not in document["metrics"]], "metrics")
    except (ValueError, UsageError) as cause:
        raise UsageError(f"{path} is damaged: {first_line(cause)}", remedy) from cause
    return Run(folder, document)


def run_of(folder: Path | None, artifact: Path | None) -> Run:
    """The run in `folder`; else the one that `artifact` lies in; else the newest."""
    return open_run(folder or (folder_of(artifact) if artifact else None))


def folder_of(artifact: Path) -> Path | None:
    """The run that the artifact lies in."""
    folder = artifact.parent.parent
    return folder if (folder / "run.json").is_file() else None


def versions() -> dict[str, str]:
    import onnxruntime

    names = ("deploypipe", "torch", "torchvision", "onnx", "onnxscript", "numpy")
    # Its package's name depends on the platform.
    found = {name: version(name) for name in names} | {"onnxruntime": onnxruntime.__version__}
    return {"python": platform.python_version(), **found}


def git_commit() -> str | None:
    """The commit of the folder we run in, with "+changes" when the tree differs from it; None outside a checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed.strip() else commit
