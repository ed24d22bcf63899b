"""The run directory's files, written when a training is complete."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import nn

from deploypipe.contract.environment import git_commit, versions
from deploypipe.contract.run import SCHEMA, Run, open_run
from deploypipe.data import Dataset
from deploypipe.files import atomic_path, sha256_file, write_json
from deploypipe.training.config import TrainConfig


def write_samples(dataset: Dataset, folder: Path) -> None:
    """The first test image of each class as a PNG."""
    if dataset.test.inputs.dtype != torch.uint8:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for label in range(len(dataset.classes)):
        first = (dataset.test.targets == label).nonzero()[0, 0]
        with atomic_path(folder / f"{label}.png") as temporary:
            Image.fromarray(dataset.test.inputs[first, 0].numpy()).save(temporary)


def write_weights(folder: Path, module: nn.Module) -> str:
    """Their sha256."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    # Artifacts and verdicts of the weights that are replaced now would no longer be this run's.
    shutil.rmtree(folder / "exports", ignore_errors=True)
    (folder / "parity.json").unlink(missing_ok=True)
    path = folder / "weights.safetensors"
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_safetensors(weights))
    return sha256_file(path)


def write_run(folder: Path, config: TrainConfig, weights_sha256: str, facts: dict[str, Any]) -> Run:
    """run.json, last of all: a folder that has it is complete."""
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
    write_json(folder / "run.json", document)
    return open_run(folder)
