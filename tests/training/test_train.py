import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import small

from deploypipe.contract.run import open_run
from deploypipe.errors import TrainingError, UsageError
from deploypipe.models.trained import load_trained
from deploypipe.train import Progress, TrainConfig, configure, train
from deploypipe.training.config import RATES
from deploypipe.training.schedules import SCHEDULES

SMALL = small()


def test_a_run_directory_says_all(tmp_path: Path) -> None:
    seen: list[Progress] = []
    run = train(SMALL, tmp_path / "run", on_progress=seen.append)
    document = json.loads((run.folder / "run.json").read_text())
    assert document["schema"] == "deploypipe.run/1"
    assert document["dataset"]["name"] == "digits" and len(document["dataset"]["sha256"]) == 64
    assert [row["epoch"] for row in document["epochs"]] == [1, 2]
    assert document["epochs"][1]["loss"] < document["epochs"][0]["loss"]
    assert document["metrics"]["accuracy"] > 0.5 and document["metrics"]["examples"] == 359
    assert document["config"]["optimizer"]["name"] == "adam"
    assert document["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"load", "setup", "train", "evaluate", "write"} <= set(document["phases"])
    assert document["seconds"] == document["phases"]["train"] > 0
    assert document["images_per_second"] == pytest.approx(2 * 1438 / document["seconds"], rel=0.05)
    assert (seen[-1].epoch, seen[-1].step) == (2, seen[-1].steps)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        ".deploypipe", ".lock", "checkpoint.previous.pt", "checkpoint.pt", "run.json", "samples",
        "tensorboard", "weights.safetensors",
    ]  # fmt: skip
    assert len(list(run.samples.glob("*.png"))) == 10
    assert any((run.folder / "tensorboard").glob("events.*"))
    # Training pixels' own mean and deviation, not somebody's constants.
    weights = load_file(run.folder / "weights.safetensors")
    assert 20 < weights["mean"] < 80 and 20 < weights["std"] < 120


@pytest.mark.parametrize(
    ("option", "value"),
    [("optimizer__name", name) for name in RATES]
    + [("schedule__name", name) for name in SCHEDULES]
    + [("loss__l1", 1e-5), ("optimizer__weight_decay", 1e-4)]
    + [("loss__label_smoothing", 0.1), ("average", 0.9), ("precision", "bfloat16"), ("epochs", 1.5)]
    + [("augment__shift", 2.0), ("augment__rotate", 10.0), ("augment__scale", 0.1), ("deterministic", True)],
)
def test_every_option_trains(tmp_path: Path, option: str, value: object) -> None:
    run = train(small(**{"optimizer__lr": None, option: value}), tmp_path)
    assert run.document["metrics"]["accuracy"] > 0.3


def test_epochs_need_not_be_whole(tmp_path: Path) -> None:
    """Of 1,438 examples in batches of 300 the last 238 are a step; of batches of 500, the last 438; of 1,000, none."""
    for batch_size, epochs, steps in ((300, 1.5, [5, 3]), (500, 0.6, [2]), (1000, 2.0, [1, 1]), (2000, 0.1, [1])):
        seen: list[Progress] = []
        config = small(batch_size=batch_size, epochs=epochs)
        run = train(config, tmp_path / str(batch_size), on_progress=seen.append)
        ends = [progress for progress in seen if progress.step == progress.steps]
        assert [progress.steps for progress in ends] == steps
        assert [row["epoch"] for row in run.document["epochs"]] == list(range(1, len(steps) + 1))


def test_examples_are_epochs_of_any_dataset(tmp_path: Path) -> None:
    run = train(small(epochs=None, examples=360), tmp_path)
    assert run.document["config"]["epochs"] == 360 / 1438
    assert [row["epoch"] for row in run.document["epochs"]] == [1]
    assert train(small(examples=360), tmp_path).document["config"]["epochs"] == 2, "epochs go before examples"


def test_the_default_network_and_recipe_train(tmp_path: Path) -> None:
    run = train(configure(options={"data": "digits", "device": "cpu", "examples": 8000}), tmp_path)
    assert run.document["model"] == "lean-cnn" and run.document["metrics"]["accuracy"] > 0.95


def test_l1_and_l2_shrink_weights(tmp_path: Path) -> None:
    def size(**options: float) -> float:
        run = train(small(epochs=4, **options), tmp_path / str(options))
        return float(load_file(run.folder / "weights.safetensors")["network.1.weight"].abs().sum())

    assert size(loss__l1=1e-3) < size() and size(optimizer__weight_decay=1e-2) < size()


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    config = small(epochs=40, optimizer__name="sgd", optimizer__lr=0.5, schedule__name="constant", validation=0.2,
                   patience=2)  # fmt: skip
    run = train(config, tmp_path)
    rows = run.document["epochs"]
    assert len(rows) < 40, "it stopped early"
    best = min(range(len(rows)), key=lambda i: rows[i]["validation_loss"])
    assert len(rows) == best + 1 + 2
    assert run.document["dataset"]["validation"] == round(1438 * 0.2)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name, tensor in load_file(tmp_path / "weights.safetensors").items():
        assert torch.equal(tensor, checkpoint["best"][name])


def test_the_regression_finds_its_line(tmp_path: Path) -> None:
    run = train(TrainConfig(model="linear-regression"), tmp_path)
    weights = load_file(run.folder / "weights.safetensors")
    assert abs(float(weights["weight"]) - 2) < 0.01 and abs(float(weights["bias"])) < 0.01
    assert run.document["metrics"]["mean_squared_error"] < 1e-4


def test_a_model_without_training_still_gets_a_run(tmp_path: Path) -> None:
    run = train(TrainConfig(model="dynamic-branch"), tmp_path / "run")
    assert run.document["dataset"] is None and run.document["epochs"] == []
    assert torch.equal(load_trained(run)(torch.ones(1, 10)), torch.full((1, 10), 2.0))


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"optimizer__lr": 1e12}, "epoch 1, step 2 of 12"),
        ({"optimizer__lr": 1e36, "batch_size": 2000}, "epoch 2, step 1 of 1"),
    ],
    ids=["within an epoch", "at its end"],
)  # fmt: skip
def test_an_exploding_loss_stops_and_keeps_the_earlier_weights(
    tmp_path: Path, settings: dict[str, Any], place: str
) -> None:
    good = train(SMALL, tmp_path).document["weights_sha256"]
    bad = small(optimizer__name="sgd", schedule__name="constant", **settings)
    with pytest.raises(
        TrainingError, match=rf"the loss became .* in {place}.*learning-rate; .* has epoch 1, step 0 of"
    ):
        train(bad, tmp_path)
    assert open_run(tmp_path).document["weights_sha256"] == good
    load_trained(open_run(tmp_path))
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in kept["module"].values())


def test_training_again_removes_the_artifacts_of_other_weights(tmp_path: Path) -> None:
    train(SMALL, tmp_path)
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "model.onnx").write_bytes(b"of the old weights")
    train(dataclasses.replace(SMALL, seed=1), tmp_path)
    assert not (tmp_path / "exports").exists()


def test_a_dataset_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="linear-regression does not train on 'digits'.*line"):
        train(TrainConfig(model="linear-regression", data="digits"), tmp_path)


def test_the_data_folder_is_recorded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(dataclasses.replace(SMALL, data_dir="data"), Path("run"))
    assert run.document["config"]["data_dir"] == str(tmp_path / "data")


@pytest.mark.parametrize("options", [{"data": "digits"}, {"epochs": 3}], ids=str)
def test_a_model_that_is_not_trained_takes_no_training_options(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="dynamic-branch is not trained"):
        train(TrainConfig(model="dynamic-branch", **options), tmp_path)


def test_a_validation_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of 1,438 examples none is left"):
        train(dataclasses.replace(SMALL, validation=0.9999), tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(UsageError, match="cannot write .*run.*: Not a directory"):
        train(SMALL, tmp_path / "run")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ".deploypipe").touch()
    (tmp_path / "half" / "tensorboard").touch()
    with pytest.raises(UsageError, match="cannot write .*tensorboard: Not a directory"):
        train(SMALL, tmp_path / "half")
