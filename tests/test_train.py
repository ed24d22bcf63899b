import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import clean_environment

from deploypipe.errors import Interrupted, TrainingError, UsageError
from deploypipe.runs import open_run
from deploypipe.train import OPTIMIZERS, SCHEDULES, Progress, TrainConfig, augment, resolve_device, train

SMALL = TrainConfig(model="mlp", data="digits", epochs=2, device="cpu")


def test_a_run_directory_says_all(tmp_path: Path) -> None:
    seen: list[Progress] = []
    run = train(SMALL, tmp_path / "run", report=seen.append)
    document = json.loads((run.folder / "run.json").read_text())
    assert document["schema"] == "deploypipe.run/1"
    assert document["dataset"]["name"] == "digits" and len(document["dataset"]["sha256"]) == 64
    assert [row["epoch"] for row in document["epochs"]] == [1, 2]
    assert document["epochs"][1]["loss"] < document["epochs"][0]["loss"]
    assert document["metrics"]["accuracy"] > 0.5 and document["metrics"]["examples"] == 359
    assert (
        document["config"]["optimizer"] == "adam" and document["versions"]["torch"] == torch.__version__.split("+")[0]
    )
    assert (seen[-1].epoch, seen[-1].step) == (2, seen[-1].steps)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "checkpoint.pt", "run.json", "samples", "tensorboard", "weights.safetensors",
    ]  # fmt: skip
    assert len(list(run.samples.glob("*.png"))) == 10
    assert any((run.folder / "tensorboard").glob("events.*"))
    # Training pixels' own mean and deviation, not somebody's constants.
    weights = load_file(run.folder / "weights.safetensors")
    assert 20 < weights["mean"] < 80 and 20 < weights["std"] < 120


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first, second = (train(SMALL, tmp_path / name).document["weights_sha256"] for name in "ab")
    assert first == second
    other = train(dataclasses.replace(SMALL, seed=1), tmp_path / "c").document["weights_sha256"]
    assert other != first


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_resume_equals_not_stopping(tmp_path: Path, network: str) -> None:
    """`cnn` has dropout and channels-last weights: its random state and memory layout must survive too."""
    config = dataclasses.replace(SMALL, model=network, epochs=3 if network == "mlp" else 2, shift=1.0)
    whole = train(config, tmp_path / "whole").document["weights_sha256"]

    def stop_in_second_epoch(progress: Progress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"has epoch 1.*--resume"):
        train(config, tmp_path / "part", report=stop_in_second_epoch)
    assert not (tmp_path / "part" / "weights.safetensors").exists()
    assert train(SMALL, tmp_path / "part", resume=True).document["weights_sha256"] == whole


@pytest.mark.parametrize(
    ("option", "value"),
    [("optimizer", name) for name in OPTIMIZERS]
    + [("schedule", name) for name in SCHEDULES]
    + [("l1", 1e-5), ("l2", 1e-4), ("shift", 2.0), ("rotate", 10.0), ("scale", 0.1)],
)
def test_every_option_trains(tmp_path: Path, option: str, value: object) -> None:
    run = train(dataclasses.replace(SMALL, **{option: value}), tmp_path)
    assert run.document["metrics"]["accuracy"] > 0.3


def test_l1_and_l2_shrink_weights(tmp_path: Path) -> None:
    def size(**options: float) -> float:
        run = train(dataclasses.replace(SMALL, epochs=4, **options), tmp_path / str(options))
        return float(load_file(run.folder / "weights.safetensors")["network.1.weight"].abs().sum())

    assert size(l1=1e-3) < size() and size(l2=1e-2) < size()


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, epochs=40, optimizer="sgd", learning_rate=0.5, schedule="constant",
                                 validation=0.2, patience=2)  # fmt: skip
    run = train(config, tmp_path)
    rows = run.document["epochs"]
    assert len(rows) < 40, "it stopped early"
    best = min(range(len(rows)), key=lambda i: rows[i]["validation_loss"])
    assert len(rows) == best + 1 + 2
    assert run.document["dataset"]["validation"] == round(1438 * 0.2)


def test_the_regression_finds_its_line(tmp_path: Path) -> None:
    run = train(TrainConfig(model="linear-regression"), tmp_path)
    weights = load_file(run.folder / "weights.safetensors")
    assert abs(float(weights["weight"]) - 2) < 0.01 and abs(float(weights["bias"])) < 0.01
    assert run.document["metrics"]["mean_squared_error"] < 1e-4


def test_a_model_without_training_still_gets_a_run(tmp_path: Path) -> None:
    run = train(TrainConfig(model="dynamic-branch"), tmp_path / "run")
    assert run.document["dataset"] is None and run.document["epochs"] == []
    assert torch.equal(run.load_module()(torch.ones(1, 10)), torch.full((1, 10), 2.0))


def test_an_exploding_loss_stops_and_keeps_the_earlier_weights(tmp_path: Path) -> None:
    good = train(SMALL, tmp_path).document["weights_sha256"]
    bad = dataclasses.replace(SMALL, optimizer="sgd", learning_rate=1e12, schedule="constant")
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) in epoch 1, step .*learning-rate"):
        train(bad, tmp_path)
    assert open_run(tmp_path).document["weights_sha256"] == good
    open_run(tmp_path).load_module()


def test_training_again_removes_the_artifacts_of_other_weights(tmp_path: Path) -> None:
    train(SMALL, tmp_path)
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "model.onnx").write_bytes(b"of the old weights")
    train(dataclasses.replace(SMALL, seed=1), tmp_path)
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"optimizer": "lion"}, "optimizer is 'lion', must be one of sgd"),
        ({"schedule": "never"}, "schedule is 'never'"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"validation": 1.5}, "validation is 1.5"),
        ({"patience": 3}, "patience needs a validation fraction"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**31}, "seed is 2147483648"),
        ({"l2": -1.0}, "must not be negative"),
    ],
    ids=lambda value: str(value),
)
def test_bad_configurations_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**options)  # type: ignore[arg-type]


def test_a_dataset_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="linear-regression does not train on 'digits'.*line"):
        train(TrainConfig(model="linear-regression", data="digits"), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"not a checkpoint", "cannot be read")],
    ids=["missing", "damaged"],
)
def test_checkpoints_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        train(SMALL, tmp_path, resume=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(SMALL, tmp_path_factory.mktemp("trained") / "run").folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_resuming_a_complete_run_changes_nothing(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "exports").mkdir()
    (run / "exports" / "model.onnx").touch()
    (run / "parity.json").touch()
    before = contents(run)
    assert train(SMALL, run, resume=True).folder == run
    assert contents(run) == before
    # Weights that are not the run's make it incomplete: they come back.
    (run / "weights.safetensors").unlink()
    assert train(SMALL, run, resume=True).document["epochs"] == json.loads(before["run.json"])["epochs"]
    assert contents(run)["weights.safetensors"] == before["weights.safetensors"]


def test_the_newest_checkpoint_goes_on_in_its_own_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs", "mine").mkdir(parents=True)
    shutil.copyfile(trained / "checkpoint.pt", "runs/mine/checkpoint.pt")
    assert train(SMALL, resume=True).folder == Path("runs", "mine")
    assert [path.name for path in Path("runs").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(dataset_sha256="0" * 64), "digits is not the one that .* was trained on"),
        (lambda state: state.pop("history"), "cannot be resumed: it has no 'history'"),
        (lambda state: state.update(epoch="1"), "epoch is of the wrong type"),
        (lambda state: state["config"].update(future=1), r"another version's \(future\)"),
        (lambda state: state["config"].pop("seed"), r"another version's \(seed\)"),
        (lambda state: state["config"].update(seed="x"), "cannot be resumed"),
        (lambda state: state["config"].update(model="gone"), "no model 'gone'"),
        (lambda state: state["module"].popitem(), "does not fit mlp"),
    ],
    ids=["dataset", "missing", "type", "unknown option", "missing option", "option's type", "model", "weights"],
)
def test_checkpoints_of_something_else(
    trained: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    state = torch.load(trained / "checkpoint.pt", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match=f"{message}.*without --resume"):
        train(SMALL, tmp_path, resume=True)


def test_the_data_folder_is_recorded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(dataclasses.replace(SMALL, data_dir="data"), Path("run"))
    assert run.document["config"]["data_dir"] == str(tmp_path / "data")


@pytest.mark.parametrize("options", [{"data": "digits"}, {"epochs": 3}], ids=str)
def test_a_model_that_is_not_trained_takes_no_training_options(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="dynamic-branch is not trained"):
        train(TrainConfig(model="dynamic-branch", **options), tmp_path)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"device 'tpu' is not there.*cpu"):
        resolve_device("tpu")
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="'cpu:x' is no device"):
        resolve_device("cpu:x")


def test_a_validation_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of 1,438 examples none is left"):
        train(dataclasses.replace(SMALL, validation=0.9999), tmp_path)


def test_augmentation_moves_what_it_should() -> None:
    torch.manual_seed(0)
    image = torch.zeros(64, 1, 28, 28, dtype=torch.uint8)
    image[:, :, 12:16, 12:16] = 200
    assert torch.equal(augment(image, shift=0, rotate=0, scale=0), image)
    moved = augment(image, shift=3, rotate=0, scale=0)
    assert moved.dtype == torch.uint8 and moved.shape == image.shape
    rows = moved.float().sum(dim=(1, 3))
    centre = (rows * torch.arange(28)).sum(1) / rows.sum(1)
    assert (centre - 13.5).abs().max() <= 3.01 and centre.std() > 1
    larger = augment(image, shift=0, rotate=0, scale=0.5).float().sum(dim=(1, 2, 3))
    assert larger.max() > 1.5 * 16 * 200 and larger.min() < 0.7 * 16 * 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_leaves_no_half_written_file_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "deploypipe", "train", "--data", "digits", "--model", "mlp", "--epochs", "100000"],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:  # an epoch's line: its checkpoint is being written or there
        if line.startswith("epoch 3/"):
            break
    os.kill(process.pid, number)
    said = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "checkpoint.pt has epoch" in said and "deploypipe train --resume --out runs/mlp-digits" in said
    left = sorted(path.name for path in (tmp_path / "runs" / "mlp-digits").iterdir())
    assert left == ["checkpoint.pt", "tensorboard"]
    torch.load(tmp_path / "runs" / "mlp-digits" / "checkpoint.pt", weights_only=True)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(UsageError, match="cannot write .*run.*: Not a directory"):
        train(SMALL, tmp_path / "run")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "tensorboard").touch()
    with pytest.raises(UsageError, match="cannot write .*tensorboard: Not a directory"):
        train(SMALL, tmp_path / "half")
