"""The same training again: from its run.json, and against losses that were noted down."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small import contents, small

from deploypipe.contract.run import Run
from deploypipe.errors import DataError, UsageError
from deploypipe.train import TrainConfig, repeat, train

GOLDEN: list[tuple[dict[str, Any], list[float], list[float]]] = [
    ({}, [1.78423, 0.64229], [0.50278, 0.86509]),
    (
        {"model": "simple-cnn", "optimizer.name": "muon", "optimizer.lr": 0.05, "optimizer.momentum": 0.6,
         "augment.shift": 1.0, "loss.label_smoothing": 0.1, "schedule.name": "linear", "schedule.warmup": 0.2,
         "validation": 0.2, "average": 0.9},
        [2.10022, 1.13231],
        [0.30957, 0.84609],
    ),
    (
        {"optimizer.name": "sgd", "optimizer.lr": 0.05, "optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-4,
         "schedule.name": "cosine", "loss.l1": 1e-6, "augment.rotate": 10.0, "augment.scale": 0.1, "seed": 7},
        [1.40176, 0.37574],
        [0.6363, 0.88943],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "losses", "accuracies"), GOLDEN, ids=["adam", "muon", "sgd"])
def test_golden_losses(tmp_path: Path, settings: dict[str, Any], losses: list[float], accuracies: list[float]) -> None:
    """Processors round differently (AVX2 and AVX-512: by a thousandth after two epochs of Muon), nothing else may."""
    rows = train(small(**{key.replace(".", "__"): value for key, value in settings.items()}), tmp_path).document[
        "epochs"
    ]
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=3e-3)
    assert [row["accuracy"] for row in rows] == pytest.approx(accuracies, abs=5e-3)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(small(augment__shift=1.0, validation=0.1), tmp_path_factory.mktemp("first") / "run")


def test_a_run_is_repeated_from_its_document(first: Run, tmp_path: Path) -> None:
    before = contents(first.folder)
    second, same = repeat(first.folder / "run.json", tmp_path / "second")
    assert same and second.document["epochs"] == first.document["epochs"]
    assert second.document["config"] == first.document["config"]
    third, same = repeat(second.folder)
    assert same and third.folder == tmp_path / "second-again"
    assert contents(first.folder) == before


def changed(first: Run, tmp_path: Path, **facts: Any) -> Path:
    folder = Path(shutil.copytree(first.folder, tmp_path / "changed"))
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(document | facts))
    return folder


def test_other_weights_are_said_with_what_else_is_different(first: Run, tmp_path: Path) -> None:
    warnings: list[str] = []
    folder = changed(first, tmp_path, weights_sha256="0" * 64, threads=99)
    assert not repeat(folder, warn=warnings.append)[1]
    assert "the weights are not those of" in warnings[0] and "other threads" in warnings[0]
    (folder / "run.json").write_text(json.dumps(dict(first.document) | {"weights_sha256": "0" * 64}))
    repeat(folder, warn=warnings.append)
    assert "nothing that run.json knows is different" in warnings[1]


def test_what_cannot_be_repeated(first: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is the run that is to be repeated.*another --out"):
        repeat(first.folder, first.folder / ".." / "run")
    with pytest.raises(UsageError, match="run.json does not exist"):
        repeat(tmp_path / "run.json")
    config = dict(first.document["config"])
    config.pop("seed")
    folder = changed(first, tmp_path, config=config)
    with pytest.raises(UsageError, match="run.json is another version's: the configuration has no seed"):
        repeat(folder)
    document = dict(first.document) | {"dataset": first.document["dataset"] | {"sha256": "0" * 64}}
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="is not the one that .* was trained on"):
        repeat(folder)
    assert not (tmp_path / "changed-again").exists()


def test_a_model_that_is_not_trained_is_repeated_too(tmp_path: Path) -> None:
    first = train(TrainConfig(model="dynamic-depth", seed=3), tmp_path / "run")
    second, same = repeat(first.folder)
    assert same and second.document["seed"] == 3
