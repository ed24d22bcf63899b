"""A training that was stopped, killed or hindered, and the checkpoints that bring it back."""

import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from small import contents, processes, small
from support import clean_environment

from deploypipe.contract.run import open_run
from deploypipe.errors import DeploypipeError, Interrupted, TrainingError
from deploypipe.train import Progress, TrainConfig, train
from deploypipe.training import checkpoint
from deploypipe.training.loop import Loop


def load(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, weights_only=True))


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process gets a SIGINT in the middle of this step (from 1), as Ctrl-C sends it."""
    advance = Loop.advance

    def interrupted(loop: Loop) -> None:
        if loop.step == step - 1:
            signal.raise_signal(signal.SIGINT)
        advance(loop)

    monkeypatch.setattr(Loop, "advance", interrupted)


MOVED = {"model": "simple-cnn", "optimizer.name": "sgd", "augment.shift": 1.0, "validation": 0.1}


@pytest.mark.parametrize(
    ("settings", "step"),
    [({"optimizer.name": "muon", "average": 0.9, "precision": "bfloat16", "epochs": 1.5}, 7)]
    + [({}, step) for step in (1, 5, 12, 13, 24)]
    + [(MOVED, step) for step in (5, 11, 22)]
    + [({"model": "cnn", "epochs": 0.2, "batch_size": 100}, 2)],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_resume_equals_not_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], step: int
) -> None:
    """Layouts, optimizer state and random numbers must survive, at an epoch's ends and within it."""
    config = small(**{key.replace(".", "__"): value for key, value in settings.items()})
    whole = train(config, tmp_path / "whole").document
    stop_at(step, monkeypatch)
    with pytest.raises(Interrupted, match=r"checkpoint.pt has epoch .*--resume --out"):
        train(config, tmp_path / "part")
    monkeypatch.undo()
    assert load(tmp_path / "part" / "checkpoint.pt")["step"] == step
    assert not (tmp_path / "part" / "weights.safetensors").exists()
    resumed = train(small(seed=9), tmp_path / "part", resume=True).document
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert (resumed["epochs"], resumed["config"]) == (whole["epochs"], whole["config"])


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first, second = (train(small(), tmp_path / name).document["weights_sha256"] for name in "ab")
    assert first == second
    assert train(small(seed=1), tmp_path / "c").document["weights_sha256"] != first


def test_what_others_draw_and_how_often_it_is_told_changes_nothing(tmp_path: Path) -> None:
    config = small(augment__rotate=5.0)
    first = train(config, tmp_path / "a").document["weights_sha256"]
    torch.manual_seed(1234)
    often = small(augment__rotate=5.0, checkpoint__every_steps=1)
    second = train(often, tmp_path / "b", on_progress=lambda progress: print(torch.rand(3))).document["weights_sha256"]
    assert first == second


def test_ctrl_c_in_a_report_keeps_the_step(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="has epoch 2, step 0 of 12"):
        train(small(), tmp_path, on_progress=stop)
    assert train(small(), tmp_path, resume=True).document["metrics"]["accuracy"] > 0.5


def test_a_second_signal_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(loop: Loop) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Loop, "advance", hangs)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="in the middle of a step.*can be resumed"):
        train(small(), tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    assert load(tmp_path / "checkpoint.pt")["step"] == 0


def test_a_thread_can_train(tmp_path: Path) -> None:
    thread = threading.Thread(target=train, args=(small(epochs=1), tmp_path))
    thread.start()
    thread.join()
    assert open_run(tmp_path).document["epochs"]


def test_checkpoints_by_steps_and_by_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = checkpoint.save

    def noting(folder: Path, document: dict[str, Any]) -> None:
        saved.append(document["step"])
        save(folder, document)

    monkeypatch.setattr(checkpoint, "save", noting)
    train(small(), tmp_path)
    assert saved == [0, 24], "a short training writes none on its way"
    saved.clear()
    train(small(checkpoint__every_steps=10), tmp_path)
    assert saved == [0, 10, 20, 24]
    assert load(tmp_path / checkpoint.PREVIOUS)["step"] == 20
    saved.clear()
    train(small(epochs=1, checkpoint__every_seconds=0), tmp_path)
    assert saved == list(range(13))


def test_a_checkpoint_describes_itself(trained: Path) -> None:
    found = load(trained / "checkpoint.pt")
    document = open_run(trained).document
    assert found["schema"] == "deploypipe.checkpoint/2"
    assert found["config"] == document["config"] and found["dataset"]["sha256"] == document["dataset"]["sha256"]
    assert (found["epoch"], found["step"], found["metrics"]) == (2, 24, document["epochs"][-1])
    assert found["versions"]["torch"] == str(torch.__version__) and found["device"] == "cpu"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small(), tmp_path_factory.mktemp("trained") / "run").folder


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that ended after step 18, with checkpoints of 12 and 18."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        folder = tmp_path_factory.mktemp("half") / "run"
        stop_at(18, patch)
        train(small(checkpoint__every_steps=12), folder)
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    """One bit of a weight: everything still loads, only the checksum tells."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [cut, flip, Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"not a checkpoint"),
     lambda path: torch.save({"schema": "other"}, path), lambda path: torch.save([1], path)],
    ids=["cut", "one bit", "gone", "empty", "text", "another file", "another thing"],
)  # fmt: skip
def test_the_previous_checkpoint_stands_in_for_a_damaged_one(
    half: Path, trained: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "run"))
    damage(folder / "checkpoint.pt")
    gone = not (folder / "checkpoint.pt").exists()
    warnings: list[str] = []
    run = train(small(), folder, resume=True, warn=warnings.append)
    assert run.document["weights_sha256"] == open_run(trained).document["weights_sha256"]
    assert gone or ("checkpoint.pt cannot be resumed" in warnings[0]
                    and "Going on from checkpoint.previous.pt, step 12" in warnings[0])  # fmt: skip


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip], ids=["gone", "cut", "one bit"])
def test_without_a_good_checkpoint_the_remedy_is_named(half: Path, tmp_path: Path, damage: Any) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "run"))
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        damage(folder / name)
    with pytest.raises(TrainingError, match=r"checkpoint.pt (does not exist|cannot be resumed).*--fresh"):
        train(small(), folder, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["dataset"].update(sha256="0" * 64), "digits is not the one that .* was trained on"),
        (lambda state: state.pop("history"), "cannot be resumed: Object missing required field `history`"),
        (lambda state: state.update(epoch="1"), r"cannot be resumed: Expected `int`, got `str` - at `\$.epoch`"),
        (lambda state: state["config"].update(future=1), "no setting 'future'"),
        (lambda state: state["config"].pop("seed"), "the configuration has no seed"),
        (lambda state: state["config"].update(seed="x"), "seed is 'x', must be a whole number"),
        (lambda state: state["config"].update(model="gone"), "no model 'gone'"),
        (lambda state: state["module"].popitem(), "does not fit mlp"),
    ],
    ids=["dataset", "missing", "type", "unknown option", "missing option", "option's type", "model", "weights"],
)
def test_checkpoints_of_something_else(
    trained: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    state = load(trained / "checkpoint.pt")
    change(state)
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match=f"{message}.*--fresh"):
        train(small(), tmp_path, resume=True)


def test_another_version_of_torch_is_said(half: Path, tmp_path: Path) -> None:
    state = load(half / "checkpoint.pt")
    state["versions"]["torch"] = "1.0"
    torch.save(state, tmp_path / "checkpoint.pt")
    warnings: list[str] = []
    train(small(), tmp_path, resume=True, warn=warnings.append)
    assert "the checkpoint is of torch 1.0" in warnings[0]


def test_resuming_a_complete_run_changes_nothing(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "exports").mkdir()
    (run / "exports" / "model.onnx").touch()
    (run / "parity.json").touch()
    before = contents(run)
    assert train(small(), run, resume=True).folder == run
    assert contents(run) == before
    # Weights that are not the run's make it incomplete: they come back.
    (run / "weights.safetensors").unlink()
    train(small(), run, resume=True)
    assert contents(run)["weights.safetensors"] == before["weights.safetensors"]


@pytest.mark.parametrize("name", [checkpoint.LAST, checkpoint.PREVIOUS])
def test_the_newest_checkpoint_goes_on_in_its_own_folder(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The previous one is alone when a process was killed between the two renames of a new checkpoint."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="no checkpoint in .*runs to resume from"):
        train(small(), resume=True)
    Path("runs", "mine").mkdir(parents=True)
    shutil.copyfile(half / name, Path("runs", "mine", name))
    assert train(small(), resume=True).folder == Path("runs", "mine")
    assert [path.name for path in Path("runs").iterdir()] == ["mine"]


def test_a_new_training_never_goes_on_from_an_older_one(trained: Path, tmp_path: Path, monkeypatch: Any) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    stop_at(1, monkeypatch)
    with pytest.raises(Interrupted):
        train(small(seed=1), folder)
    monkeypatch.undo()
    cut(folder / "checkpoint.pt")
    run = train(small(), folder, resume=True)
    assert run.document["seed"] == 1


def test_the_second_of_two_in_one_folder_is_refused(tmp_path: Path) -> None:
    def second(progress: Progress) -> None:
        before = contents(tmp_path)
        for resume in (False, True):
            with pytest.raises(TrainingError, match="another training is at work in .*--out"):
                train(small(), tmp_path, resume=resume)
        assert contents(tmp_path) == before

    train(small(epochs=1), tmp_path, on_progress=second)
    with FileLock(tmp_path / ".lock", timeout=0):
        pass  # given back
    train(small(epochs=1), tmp_path)


# --- Real processes -------------------------------------------------------------------------------------------------


def test_a_signal_leaves_no_half_written_file_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploypipe", "train", "--data", "digits", "--model", "mlp", "--out", "run",
               "--epochs", "100000", "--batch-size", "120"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(tmp_path), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 3/"):
            break
    process.terminate()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "run/checkpoint.pt has epoch" in said and "deploypipe train --resume --out run" in said
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert left == [".deploypipe", ".lock", "checkpoint.previous.pt", "checkpoint.pt", "tensorboard"]
    assert load(tmp_path / "run" / "checkpoint.pt")["step"] >= 3 * 12


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    """A kill somewhere in the first start or in what a resume still had to do; the files are whole at every moment."""
    config = small(epochs=40, augment__shift=1.0, validation=0.1, checkpoint__every_steps=3)
    begun = time.monotonic()
    whole = finished(config, tmp_path / "whole")
    longest = time.monotonic() - begun
    folder, moments, where = tmp_path / "run", random.Random(kills), [0]
    while len(where) <= kills or not where[-1]:
        there = any((folder / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS))
        process = processes().Process(target=train, args=(config, folder), kwargs={"resume": there})
        process.start()
        process.join(timeout=moments.uniform(0, longest / 2))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), "it failed before it was killed"
        where.append(checkpoint.load_checkpoint(folder, lambda warning: None)["step"] if there else 0)
        longest *= 1 if where[-1] else 2  # on a busy machine it gets nowhere in that time
    assert where == sorted(where), "it went on each time"
    resumed = finished(config, folder, resume=True)
    assert resumed["weights_sha256"] == whole["weights_sha256"] and resumed["epochs"] == whole["epochs"]


def finished(config: TrainConfig, folder: Path, resume: bool = False) -> dict[str, Any]:
    """The record of a training in a process like those that are killed: with as many threads, so the same bits."""
    process = processes().Process(target=train, args=(config, folder), kwargs={"resume": resume})
    process.start()
    process.join()
    assert process.exitcode == 0
    return open_run(folder).document


def resume_with_a_full_disk(folder: Path, room: int, answer: Connection) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        answer.send(str(train(small(), folder, resume=True)))
    except DeploypipeError as cause:
        answer.send(str(cause))


def test_a_full_disk_keeps_the_checkpoint_before(half: Path, tmp_path: Path) -> None:
    """No file of that process may become as large as a checkpoint."""
    folder = Path(shutil.copytree(half, tmp_path / "run"))
    room = (folder / "checkpoint.pt").stat().st_size - 1000
    ours, its = processes().Pipe()
    process = processes().Process(target=resume_with_a_full_disk, args=(folder, room, its))
    process.start()
    its.close()  # a process that ends without a word is the end of the pipe
    said = ours.recv()
    process.join()
    assert f"cannot write {folder}/checkpoint.pt: File too large" in said
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        assert (folder / name).read_bytes() == (half / name).read_bytes()
    assert not [path for path in folder.iterdir() if path.name.startswith(".checkpoint")]
    assert train(small(), folder, resume=True).document["epochs"]
