"""A training deletes and overwrites only what is shown to be deploypipe's own, and never a training that is not
finished."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from small import contents, small
from test_train_never_lost import cut, load, stop_at

from deploypipe.contract.run import open_run
from deploypipe.errors import Interrupted, TrainingError, UsageError
from deploypipe.train import TrainConfig, train
from deploypipe.training import checkpoint, pictures
from deploypipe.training.distributed import Group


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the weights that the training which `half` began comes to."""
    return str(train(small(), tmp_path_factory.mktemp("whole")).document["weights_sha256"])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was stopped after step 18 of 24, as a process of a group that restarts what it lost."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        folder = tmp_path_factory.mktemp("stopped") / "run"
        stop_at(18, patch)
        train(small(), folder, group=Group(launch_id="first"))
    return folder


@pytest.fixture
def half(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "half"))


@pytest.mark.parametrize("name", ["exports", "samples", "tensorboard"])
@pytest.mark.parametrize("config", [small(epochs=1), TrainConfig(model="dynamic-branch")], ids=["trained", "untrained"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_that_is_no_run_stays_as_it_is(tmp_path: Path, name: str, config: TrainConfig, fresh: bool) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("years of work")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(UsageError, match=f"is no run, but has {name}, which a training would replace.*--out"):
        train(config, tmp_path, fresh=fresh)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["run.json", "weights.safetensors", "checkpoint.pt", "parity.json", "curves.png"])
def test_neither_is_a_file_replaced_that_is_not_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=f"has {name}"):
        train(small(epochs=1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_files_in_the_folder_are_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    train(small(epochs=1), tmp_path)
    train(small(epochs=1), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unfinished_training_is_not_started_over_unless_asked(half: Path, whole: str) -> None:
    before = contents(half)
    for config in (small(), small(seed=1)):
        with pytest.raises(
            TrainingError,
            match=r"not finished: 18 steps are done.*train --resume --out .*--fresh",
        ):
            train(config, half)
    assert contents(half) == before
    again = Path(shutil.copytree(half, half.with_name("again")))
    assert train(small(), half, resume=True).document["weights_sha256"] == whole
    assert train(small(seed=1), again, fresh=True).document["seed"] == 1


def test_damaged_checkpoints_can_be_started_over(half: Path, whole: str) -> None:
    cut(half / checkpoint.LAST)
    (half / checkpoint.PREVIOUS).unlink(missing_ok=True)
    with pytest.raises(TrainingError, match="Start over with --fresh"):
        train(small(), half, resume=True)
    assert train(small(), half, fresh=True).document["weights_sha256"] == whole


def test_to_resume_and_to_start_over_exclude_each_other(half: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        train(small(), half, resume=True, fresh=True)


NOT_DECISIVE: dict[str, Any] = {"checkpoint__every_steps": 5, "checkpoint__every_seconds": 9.0, "data_dir": "elsewhere"}


@pytest.mark.parametrize("name", NOT_DECISIVE)
def test_a_group_goes_on_whatever_does_not_change_the_result(half: Path, whole: str, name: str) -> None:
    warnings: list[str] = []
    group = Group(launch_id="second")
    run = train(small(**{name: NOT_DECISIVE[name]}), half, group=group, warn=warnings.append)
    assert any("going on with" in line and "step 18" in line for line in warnings)
    assert run.document["weights_sha256"] == whole


def test_a_group_starts_over_only_when_asked(half: Path) -> None:
    """With --fresh in its command a process that is started again goes on: it must not start over each time."""
    with pytest.raises(TrainingError, match="not finished"):
        train(small(seed=1), half, group=Group(launch_id="second"))
    warnings: list[str] = []
    again = Path(shutil.copytree(half, half.with_name("again")))
    train(small(), again, fresh=True, group=Group(launch_id="first"), warn=warnings.append)
    assert any("going on with" in line for line in warnings)
    warnings.clear()
    train(small(), half, fresh=True, group=Group(launch_id="second"), warn=warnings.append)
    assert not warnings


def test_a_resumed_training_finds_its_data_elsewhere(half: Path, whole: str, tmp_path: Path) -> None:
    run = train(small(data_dir=str(tmp_path / "moved")), half, resume=True)
    assert run.document["config"]["data_dir"] == str(tmp_path / "moved")
    assert run.document["weights_sha256"] == whole


def test_a_resumed_training_may_run_on_another_device(half: Path) -> None:
    state = load(half / checkpoint.LAST)
    state["config"]["device"] = state["device"] = "cuda:7"
    import torch

    torch.save(state, half / checkpoint.LAST)
    (half / checkpoint.PREVIOUS).unlink(missing_ok=True)
    with pytest.raises(UsageError, match="'cuda:7' is not there"):
        train(TrainConfig(), half, resume=True)
    warnings: list[str] = []
    assert train(TrainConfig(device="cpu"), half, resume=True, warn=warnings.append).document["device"] == "cpu"
    assert any("was trained on cuda:7, this is cpu" in line for line in warnings)


def test_a_plot_that_fails_loses_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*anything: object) -> None:
        assert (tmp_path / "run.json").is_file()
        raise ValueError("no font")

    monkeypatch.setattr(pictures, "confusion", fails)
    warnings: list[str] = []
    run = train(small(epochs=1), tmp_path, draw=True, warn=warnings.append)
    assert warnings == ["the pictures could not be drawn: ValueError: no font"]
    assert open_run(tmp_path).document == run.document and run.has_its_weights()
