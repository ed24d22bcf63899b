"""Several processes of one training, as torchrun starts them: gloo on this machine's CPU."""

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from support import clean_environment

from deploypipe.runs import open_run
from deploypipe.train import configure, train
from deploypipe.training.distributed import Group, joined

# 1,438 digits: the last of these batches has one example, fewer than there are processes.
SMALL = {"model": "mlp", "data": "digits", "device": "cpu", "epochs": 3, "batch_size": 479, "augment.shift": 2.0}
LONG = SMALL | {"epochs": 60, "batch_size": 240, "checkpoint.every_steps": 10}


def options(settings: dict[str, Any], out: Path) -> list[str]:
    return [*(word for key, value in settings.items() for word in ("--set", f"{key}={value}")), "--out", str(out)]


def torchrun(arguments: list[str], settings: dict[str, Any], folder: Path) -> "subprocess.Popen[str]":
    """`torchrun … -m deploypipe train …`, its output in `folder`/log."""
    argv = [sys.executable, "-m", "torch.distributed.run", *arguments, "-m", "deploypipe", "train"]
    folder.mkdir(exist_ok=True)
    # What docs/scaling.md says of replaced machines.
    environment = clean_environment(folder) | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    argv += [*options(settings, folder.parent / "run"), "--json"]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(argv, cwd=folder, env=environment, stdout=log, stderr=log, text=True)


def kill(agent: "subprocess.Popen[str]") -> None:
    """As when the machine goes down: the agent and its workers at once, none of them asked."""
    with contextlib.suppress(psutil.NoSuchProcess):
        found = psutil.Process(agent.pid)
        for process in [found, *found.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    agent.wait()


@contextlib.contextmanager
def ended(*agents: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        for agent in agents:
            kill(agent)


def wait_for(path: Path, *agents: "subprocess.Popen[str]") -> None:
    limit = time.monotonic() + 120
    while not path.exists():
        assert all(agent.poll() is None for agent in agents) and time.monotonic() < limit, f"no {path}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_the_same_training(folder: Path, settings: dict[str, Any]) -> None:
    """As one process does it: every epoch's loss and accuracy, and the weights, within what rounding does to sums that
    are added up in another order."""
    found = open_run(folder / "run")
    alone = train(configure(options=settings), folder / "alone")
    assert len(found.document["epochs"]) == settings["epochs"]
    for row, expected in zip(found.document["epochs"], alone.document["epochs"], strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-3)
    weights, expected = (load_file(run.folder / "weights.safetensors") for run in (found, alone))
    torch.testing.assert_close(weights, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_shares_are_the_batch_and_their_mean_is_its_mean(size: int, count: int) -> None:
    batch = torch.randn(count, dtype=torch.float64)
    shares = [Group(rank, size).share(count) for rank in range(size)]
    own = [batch[share.part] for share in shares if share.count]
    assert torch.equal(torch.cat(own), batch) and sum(share.count for share in shares) == count
    mean = sum(batch[share.part].mean() * share.weight for share in shares) / size
    assert mean == pytest.approx(batch.mean().item())
    assert max(share.count for share in shares) - min(share.count for share in shares) <= 1


def member(rank: int, size: int, port: int, settings: dict[str, Any], out: Path) -> None:
    """One process as torchrun starts it."""
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    torch.set_num_threads(1)
    with joined() as group:
        train(configure(options=settings), out, group=group)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "settings",
    [SMALL, SMALL | {"model": "simple-cnn", "batch_size": 100, "validation": 0.2, "patience": 2, "loss.l1": 1e-5}],
    ids=["fewer examples than processes", "validated"],
)
def test_the_same_losses_as_one_process(tmp_path: Path, size: int, settings: dict[str, Any]) -> None:
    # Forked from a process that has imported all of it, which takes longer than the training.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deploypipe.train", "onnxruntime", "sklearn.datasets", "torch.utils.tensorboard"])
    port = free_port()
    members = [context.Process(target=member, args=(rank, size, port, settings, tmp_path / "run"))
               for rank in range(size)]  # fmt: skip
    for process in members:
        process.start()
    for process in members:
        process.join(timeout=120)
        process.kill()
    assert [process.exitcode for process in members] == [0] * size
    assert_the_same_training(tmp_path, settings)


@pytest.mark.soak
def test_a_lost_worker_is_started_again_and_goes_on(tmp_path: Path) -> None:
    agent = torchrun(["--standalone", "--nproc-per-node", "2", "--max-restarts", "1"], LONG, tmp_path / "agent")
    with ended(agent):
        wait_for(tmp_path / "run" / "checkpoint.previous.pt", agent)
        worker = psutil.Process(agent.pid).children()[-1]
        worker.kill()
        assert agent.wait(timeout=300) == 0, (tmp_path / "agent" / "log").read_text()
    assert "going on with" in (tmp_path / "agent" / "log").read_text()
    assert_the_same_training(tmp_path, LONG)


def test_an_agent_that_is_killed_and_replaced_finishes(tmp_path: Path) -> None:
    """Two agents as two nodes. The one that is killed is not the one that holds the rendezvous."""
    port = free_port()
    node = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-backend", "c10d",
            "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "42",
            "--rdzv-conf"]  # fmt: skip
    alive = "keep_alive_interval=2,keep_alive_max_attempt=3"
    first = torchrun([*node, f"is_host=1,{alive}"], LONG, tmp_path / "first")
    second = torchrun([*node, f"is_host=0,{alive}"], LONG, tmp_path / "second")
    with ended(first, second):
        wait_for(tmp_path / "run" / "checkpoint.previous.pt", first, second)
        kill(second)
        third = torchrun([*node, f"is_host=0,{alive}"], LONG, tmp_path / "third")
        with ended(third):
            assert first.wait(timeout=300) == 0, (tmp_path / "first" / "log").read_text()
            assert third.wait(timeout=300) == 0, (tmp_path / "third" / "log").read_text()
    logs = (tmp_path / "first" / "log").read_text() + (tmp_path / "third" / "log").read_text()
    # One process shows and writes.
    assert "going on with" in logs and logs.count('{"run": ') == 1 and logs.count("Next: ") == 1
    assert_the_same_training(tmp_path, LONG)
