import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from deploypipe.contract.environment import git_commit
from deploypipe.contract.run import Run, open_run
from deploypipe.data import dataset_of
from deploypipe.errors import DataError, TrainingError, UsageError
from deploypipe.models.trained import load_trained


@pytest.fixture
def copy(digits_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_run.folder, tmp_path / "runs" / "copy"))


def test_the_newest_run_is_the_default(digits_run: Run, tmp_path: Path) -> None:
    for i, name in enumerate(["older", "newer"]):
        (tmp_path / name).mkdir()
        shutil.copyfile(digits_run.folder / "run.json", tmp_path / name / "run.json")
        os.utime(tmp_path / name / "run.json", (i, i))
    assert open_run(root=tmp_path).folder.name == "newer"
    assert open_run(tmp_path / "older").folder.name == "older"


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run in .*deploypipe train"):
        open_run(root=tmp_path)
    with pytest.raises(UsageError, match=r"run.json does not exist"):
        open_run(tmp_path)


def test_weights_that_are_not_the_runs_are_refused(copy: Path, digits_run: Run) -> None:
    (copy / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(TrainingError, match="is missing or is not what this run trained"):
        load_trained(open_run(copy))
    load_trained(digits_run)


def test_another_dataset_than_the_runs_is_refused(copy: Path) -> None:
    document = json.loads((copy / "run.json").read_text())
    document["dataset"]["sha256"] = "0" * 64
    (copy / "run.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="is not the one that .* was trained on"):
        dataset_of(open_run(copy))


def test_artifacts_are_those_with_a_sidecar(copy: Path) -> None:
    (copy / "exports" / "model.pt2.json").unlink()
    assert [path.name for path in open_run(copy).artifacts()] == ["model.onnx", "model.pt"]


def test_git_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    commit = git_commit()
    assert commit is not None and len(commit) == 40
    (tmp_path / "new").touch()
    assert git_commit() == f"{commit}+changes"


def test_provenance_says_what_was_used_but_not_where_it_lay(digits_run: Run) -> None:
    run = Run(digits_run.folder, digits_run.document | {"config": digits_run.document["config"] | {"data_dir": "/me"}})
    assert "/me" not in json.dumps(run.provenance()) and run.provenance()["config"]["epochs"] == 2
    assert run.provenance()["versions"]["onnxruntime"] == onnxruntime.__version__


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("metrics"), "Object missing required field `metrics`"),
        (lambda document: document.update(epochs={}), "Expected `array`, got `object` - at `$.epochs`"),
        (lambda document: document.update(dataset=None), "it has metrics, but no `dataset`"),
        (
            lambda document: document["dataset"].pop("classes"),
            "Object missing required field `classes` - at `$.dataset`",
        ),
        (
            lambda document: document["config"].pop("data_dir"),
            "Object missing required field `data_dir` - at `$.config`",
        ),
        (lambda document: document.update(metrics={}), "`metrics`: Object missing required field `examples`"),
    ],
)
def test_a_damaged_run_is_named(copy: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    document = json.loads((copy / "run.json").read_text())
    change(document)
    (copy / "run.json").write_text(json.dumps(document))
    with pytest.raises(
        UsageError, match=rf"run.json is damaged: .*{re.escape(message)}\. Train one: `deploypipe train`"
    ):
        open_run(copy)


def test_a_network_that_the_zoo_does_not_have_is_named(copy: Path) -> None:
    document = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(document | {"model": "gone"}))
    with pytest.raises(UsageError, match="no model 'gone'"):
        load_trained(open_run(copy))


def test_weights_of_another_model_are_refused(copy: Path) -> None:
    document = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(document | {"model": "mlp"}))
    with pytest.raises(TrainingError, match="does not fit mlp"):
        load_trained(open_run(copy))
