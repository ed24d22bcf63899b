"""What people expect of a training besides its weights: pictures, a learning rate, an answer to too large a batch."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import small
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from deploypipe.data import Split
from deploypipe.errors import TrainingError, UsageError
from deploypipe.models import MODELS
from deploypipe.models.classifiers import from_pixels
from deploypipe.train import TrainConfig, find_learning_rate, train
from deploypipe.training import pictures, range_test
from deploypipe.training.loop import Loop


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_a_training_draws_its_pictures_and_tensorboard_has_them(tmp_path: Path) -> None:
    run = train(small(validation=0.1), tmp_path, draw=True)
    names = ["confusion", "curves", "mistakes"]
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == names
    for name in names:
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image))) > 10, "not blank"
    found = events(tmp_path)
    assert set(found.Tags()["images"]) == set(names)
    losses = found.Scalars("loss")
    assert [event.step for event in losses] == [11, 22]
    assert [event.value for event in losses] == pytest.approx([row["loss"] for row in run.document["epochs"]])
    assert {"accuracy", "validation_loss", "validation_accuracy"} <= set(found.Tags()["scalars"])
    assert run.document["phases"]["pictures"] > 0
    train(small(), tmp_path)
    assert not list(tmp_path.glob("*.png")), "those of other weights are gone"


def test_a_regression_has_a_curve_only(tmp_path: Path) -> None:
    train(TrainConfig(model="linear-regression", device="cpu", epochs=2), tmp_path, draw=True)
    assert [path.name for path in tmp_path.glob("*.png")] == ["curves.png"]


def test_the_worst_mistakes_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.text", lambda axes, x, y, text, **more: shown.append(text))
    targets = torch.tensor([0, 1, 1, 0])
    logits = torch.tensor([[0.0, 1.0], [3.0, 0.0], [0.0, 9.0], [0.0, 5.0]])
    pictures.mistakes(
        tmp_path / "m.png", Split(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), targets), logits, ("a", "b")
    )
    assert shown == ["a as b, 99%", "b as a, 95%", "a as b, 73%"]


def test_the_finder_suggests_a_rate_that_trains_and_leaves_no_run(tmp_path: Path) -> None:
    config = small(optimizer__lr=None, optimizer__name="sgd", augment__shift=1.0, patience=2, validation=0.2)
    found, picture = find_learning_rate(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["learning-rates.png"] == [picture.name]
    assert 1e-3 < found.suggestion < 1
    assert list(found.rates) == sorted(found.rates) and len(found.losses) == len(found.rates) > 30
    good = train(small(optimizer__name="sgd", optimizer__lr=found.suggestion), tmp_path / "good").document["metrics"]
    bad = train(small(optimizer__name="sgd", optimizer__lr=found.rates[5]), tmp_path / "bad").document["metrics"]
    assert good["accuracy"] > 0.8 > bad["accuracy"]
    assert find_learning_rate(config, tmp_path)[0] == found
    with pytest.raises(UsageError, match="dynamic-branch is not trained"):
        find_learning_rate(TrainConfig(model="dynamic-branch"))


@pytest.mark.parametrize(
    ("losses", "suggestion"),
    [([9, 9, 2, 1, 0, 9], 100.0), ([5, 4, 3], 10.0), ([1, 2, 3], 0.1), ([1], 0.1)],
    ids=["steepest", "still falling", "rising at once", "one"],
)
def test_the_suggestion(losses: list[float], suggestion: float) -> None:
    assert range_test._steepest([10.0**i for i in range(len(losses))], losses) == suggestion


class Greedy(nn.Module):
    """Asks for four petabytes, which no address space has, where a batch has more than 40 images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.empty(2**50 if self.training and len(images) > 40 else 1)
        logits: torch.Tensor = self.layer(images.flatten(1))
        return logits


@from_pixels
def greedy() -> nn.Module:
    return Greedy()


def test_too_large_a_batch_is_answered_by_one_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(MODELS["mlp"], network=f"{__name__}:greedy")
    monkeypatch.setitem(MODELS, "mlp", entry)
    with pytest.raises(
        TrainingError, match=r"a batch of 120 does not fit into the memory \(cpu\). --batch-size 30 does"
    ):
        train(small(), tmp_path)
    assert train(small(batch_size=30), tmp_path).document["metrics"]["examples"] == 359


def test_a_network_that_does_not_fit_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*anything: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Loop, "learn", fails)
    with pytest.raises(TrainingError, match="a batch of 120 does not fit .*Nothing does: take a smaller network"):
        train(small(), tmp_path)


def test_other_errors_of_a_network_are_not_taken_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*anything: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Loop, "learn", fails)
    with pytest.raises(RuntimeError, match="mat1"):
        train(small(), tmp_path)
