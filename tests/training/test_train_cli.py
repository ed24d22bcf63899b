"""The train verb's own options: where settings come from, and the forms that exclude each other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small import SMALL, small
from test_train_never_lost import stop_at
from typer.testing import CliRunner

from deploypipe.cli import app
from deploypipe.commands.training_options import SHORT, option_of, settings
from deploypipe.errors import Interrupted
from deploypipe.train import TrainConfig, train
from deploypipe.training import parsing


def invoke(*argv: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["train", *argv])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"{key} = {json.dumps(value)}" for key, value in SMALL.items()]
    (tmp_path / "small.toml").write_text("\n".join(lines) + "\noptimizer.momentum = 0.5\n")
    return tmp_path


def test_settings_from_everywhere_are_in_the_run(folder: Path) -> None:
    code, out, err = invoke("--config", "small.toml", "--recipe", "accurate", "--set", "optimizer.lr=0.01", "--set",
                            "seed=3", "--seed", "4", "--shift", "0", "--l2", "1e-5", "--epochs", "0.5", "--json",
                            "--checkpoint-every-steps", "3", "--no-pictures")  # fmt: skip
    assert code == 0, err
    config = json.loads(out)["config"]
    assert (config["model"], config["seed"], config["epochs"]) == ("mlp", 4, 0.5)
    assert config["optimizer"]["lr"] == 0.01 and config["optimizer"]["momentum"] == 0.5
    assert config["optimizer"]["weight_decay"] == 1e-5 and config["checkpoint"]["every_steps"] == 3
    assert config["augment"]["shift"] == 0 and config["augment"]["rotate"] > 0, "the rest is the recipe's"
    assert not list(folder.rglob("*.png")) or {path.parent.name for path in folder.rglob("*.png")} == {"samples"}


def test_the_table_names_every_class_and_the_pictures_are_drawn(folder: Path) -> None:
    code, out, _ = invoke("--config", "small.toml", "--epochs", "1")
    assert code == 0 and "recall" in out and out.count("%") >= 11
    assert (folder / "runs" / "mlp-digits" / "curves.png").is_file()


def test_a_run_again_from_the_command_line(folder: Path) -> None:
    train(small(epochs=1), folder / "runs" / "one")
    code, out, err = invoke("--from", "runs/one/run.json", "--json", "--no-pictures")
    assert code == 0, err
    document = json.loads(out)
    assert document["run"] == "runs/one-again" and document["same_weights"] is True
    assert "The weights are those of runs/one/run.json, bit for bit." in err


def test_the_learning_rate_is_suggested_as_the_next_command(folder: Path) -> None:
    code, out, err = invoke("--config", "small.toml", "--find-lr", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert f"deploypipe train --learning-rate {found['suggestion']:g}" in err
    assert [path.name for path in (folder / "runs" / "mlp-digits").iterdir()] == ["learning-rates.png"]
    code, out, _ = invoke("--config", "small.toml", "--find-lr")
    assert code == 0 and "The loss falls fastest at a learning rate of" in out


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--set", "optimizer.rate=1"], 2, "no setting 'optimizer.rate'"),
        (["--set", "batchsize=1"], 2, "no setting 'batchsize'. Did you mean batch_size?"),
        (["--set", "seed"], 2, "'seed' sets nothing"),
        (["--config", "gone.toml"], 2, "gone.toml cannot be read: No such file"),
        (["--recipe", "slow"], 2, "no recipe 'slow'"),
        (["--resume", "--epochs", "3"], 2, "--epochs is for a new training, not with --resume"),
        (["--from", "runs/x", "--seed", "3"], 2, "--seed is for a new training, not with --from"),
        (["--resume", "--find-lr"], 2, "--resume, --from and --find-lr exclude each other"),
        (["--resume", "--fresh"], 2, "--resume, --fresh and --find-lr exclude each other"),
        (["--from", "runs/x"], 2, "run.json does not exist"),
        (["--find-lr", "--model", "dynamic-branch"], 2, "dynamic-branch is not trained"),
        (["--resume"], 4, "no checkpoint in"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_are_one_line_and_leave_nothing(folder: Path, argv: list[str], code: int, message: str) -> None:
    found, out, err = invoke(*argv)
    assert (found, out) == (code, "") and message in err.replace("\n", " ")
    assert [path.name for path in folder.iterdir()] == ["small.toml"]


def test_a_training_is_resumed_with_its_data_elsewhere_and_on_a_named_device(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_at(5, patch)
        train(small(), folder / "runs" / "half")
    code, out, err = invoke("--config", "small.toml", "--out", "runs/half")
    assert (code, out) == (
        4,
        "",
    ) and "not finished: 5 steps are done" in err
    code, out, err = invoke("--resume", "--data-dir", "moved", "--device", "cpu", "--json", "--no-pictures")
    assert code == 0, err
    document = json.loads(out)
    assert document["config"]["data_dir"] == str(folder / "moved")
    assert document["weights_sha256"] == train(small(), folder / "whole").document["weights_sha256"]


def test_every_setting_has_an_option_with_its_default() -> None:
    result = CliRunner().invoke(app, ["train", "--help"], terminal_width=200)
    said = " ".join(result.stdout.split())
    for setting in settings():
        assert f"{option_of(setting.key)} " in said, setting.key
        assert setting.help, f"{setting.key} says nothing"
        assert setting.default is None or f"[default: {setting.default}]" in said
    assert "--no-deterministic" in said and "--learning-rate" in said and "--optimizer-beta1" in said


def test_options_are_made_of_the_configuration() -> None:
    assert {setting.key for setting in settings()} == set(parsing.keys(TrainConfig))
    assert set(SHORT) <= set(parsing.keys(TrainConfig))
    names = [setting.name for setting in settings()]
    assert len(set(names)) == len(names)


def test_the_options_need_no_torch() -> None:
    """`deploypipe --help` reads them."""
    code = "import sys; sys.modules['torch'] = None; import deploypipe.commands.training_options"
    subprocess.run([sys.executable, "-c", code], check=True)
