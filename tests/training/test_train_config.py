"""Settings: what goes before what, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from deploypipe.errors import UsageError
from deploypipe.models import DEFAULT, MODELS
from deploypipe.train import TrainConfig, configure
from deploypipe.training import parsing
from deploypipe.training.recipes import RECIPES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"examples": 0}, "examples is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"optimizer.name": "lion"}, "optimizer.name is 'lion', must be one of sgd"),
        ({"schedule.name": "never"}, "schedule.name is 'never'"),
        ({"optimizer.lr": -1.0}, "optimizer.lr is -1.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"validation": 1.5}, "validation is 1.5"),
        ({"patience": 3}, "patience needs a validation fraction"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**31}, "seed is 2147483648"),
        ({"optimizer.weight_decay": -1.0}, "optimizer.weight_decay is -1.0, must not be negative"),
        ({"optimizer.momentum": -1.0}, "optimizer.momentum is -1.0"),
        ({"loss.l1": -1.0}, "loss.l1 is -1.0"),
        ({"loss.label_smoothing": 1.0}, "loss.label_smoothing is 1.0"),
        ({"optimizer.adam_lr": 0.0}, "optimizer.adam_lr is 0.0"),
        ({"optimizer.beta2": 1.0}, "optimizer.beta2 is 1.0"),
        ({"optimizer.nesterov": True, "optimizer.momentum": 0.0}, "nesterov needs a momentum"),
        ({"schedule.warmup": 2}, "schedule.warmup is 2.0, must be in"),
        ({"average": 1.0}, "average is 1.0"),
        ({"precision": "half"}, "precision is 'half', must be one of auto, float32, bfloat16"),
        ({"augment.shift": -1.0}, "augment.shift is -1.0"),
        ({"augment.rotate": -1.0}, "augment.rotate is -1.0"),
        ({"augment.scale": 1.0}, "augment.scale is 1.0"),
        ({"checkpoint.every_steps": 0}, "checkpoint.every_steps is 0"),
        ({"checkpoint.every_seconds": -1}, "checkpoint.every_seconds is -1.0"),
        ({"optimizer.lr": float("nan")}, "optimizer.lr is nan, must be"),
        ({"optimizer.lr": "fast"}, "optimizer.lr is 'fast', must be a number or none"),
        ({"batch_size": 1.5}, "batch_size is 1.5, must be a whole number"),
        ({"epochs": True}, "epochs is True"),
        ({"optimizer": "sgd"}, "'optimizer' is a section, not a setting.*optimizer.name, optimizer.lr"),
        ({"optimizer.learn": 1}, "no setting 'optimizer.learn'"),
        ({"optimizer.nme": "sgd"}, r"no setting 'optimizer.nme'. Did you mean optimizer.name\?"),
        ({"lr": 0.1}, r"no setting 'lr'. Did you mean optimizer.lr\?"),
        ({"epoch": 1}, r"no setting 'epoch'. Did you mean epochs\?"),
        ({"augment.size": 1}, "no setting 'augment.size'"),
        ({"zzz": 1}, "no setting 'zzz'. There are: model, data"),
        ({"epochs.x": 1}, "epochs is {'x': 1}, must be a number or none"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        configure(options=options)


def test_the_nearer_word_wins(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'recipe = "accurate"\nseed = 1\nbatch_size = 1\n[optimizer]\nlr = 1\nname = "sgd"\nmomentum = 0.5\n'
    )
    found = configure(
        file=file, assignments=["optimizer.lr=2", "seed=2", "schedule.name=cosine"], options={"seed": 3, "epochs": None}
    )
    assert (found.seed, found.optimizer.lr, found.batch_size) == (3, 2.0, 1)
    assert (found.optimizer.name, found.optimizer.momentum, found.schedule.name) == ("sgd", 0.5, "cosine")
    assert found.augment.shift == configure("accurate").augment.shift != TrainConfig().augment.shift
    assert configure("fast", file).augment == configure("fast").augment, "the option goes before the file's recipe"


def test_every_recipe_is_a_configuration() -> None:
    found = [configure(name) for name in RECIPES]
    assert len(set(map(str, found))) == len(RECIPES)
    with pytest.raises(UsageError, match="no recipe 'slow'.*fast, accurate"):
        configure("slow")


def test_the_recipe_is_the_models_own_unless_told() -> None:
    assert configure() == configure("fast") == configure(options={"model": DEFAULT})
    assert configure(options={"model": "wide-cnn"}) == configure("accurate")
    assert configure(options={"model": "mlp"}) == configure("plain", options={"model": "mlp"}) == TrainConfig("mlp")
    assert configure("fast", options={"model": "mlp"}) == dataclasses.replace(configure("fast"), model="mlp")
    assert {entry.recipe for entry in MODELS.values()} == set(RECIPES)
    with pytest.raises(UsageError, match="no model 'lenet'"):
        configure(options={"model": "lenet"})


def test_a_configuration_survives_being_written() -> None:
    config = configure(options={"optimizer.name": "sgd", "augment.shift": 2, "checkpoint.every_steps": 5})
    assert parsing.as_dataclass(TrainConfig, dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("seed=3", ("seed", 3)),
        (" optimizer.lr = 5e-2 ", ("optimizer.lr", 0.05)),
        ("deterministic=true", ("deterministic", True)),
        ("data_dir=/my/data", ("data_dir", "/my/data")),
        ("model='mlp'", ("model", "mlp")),
        ("optimizer.lr=none", ("optimizer.lr", None)),
        ("data_dir=a=b", ("data_dir", "a=b")),
    ],
)
def test_assignments(text: str, pair: tuple[str, object]) -> None:
    assert parsing.assignment(text) == pair


@pytest.mark.parametrize("text", ["seed", "=3", ""])
def test_an_assignment_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"sets nothing.*optimizer.lr=0.05"):
        parsing.assignment(text)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"a = ", "Invalid value"), (b"\xff", "utf-8")], ids=str
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=f"mine.toml cannot be read: .*{message}"):
        configure(file=file)
