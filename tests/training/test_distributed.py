"""Several processes of one training, as torchrun starts them: gloo on this machine's CPU."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import small
import torch
from safetensors.torch import load_file
from support import clean_environment
from torch import nn
from torchvision import datasets

from deploypipe.contract.run import open_run
from deploypipe.data import Split, embedded
from deploypipe.errors import DataError, TrainingError, UsageError
from deploypipe.train import configure, train
from deploypipe.training.distributed import Group, joined

# Of 1,438 digits: no batch has as many examples for each of the processes.
SMALL = small.SMALL | {"epochs": 3, "batch_size": 301, "augment.shift": 2.0}
LONG = SMALL | {"epochs": 40, "checkpoint.every_steps": 10}


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
        assert row.keys() == expected.keys()
        for name, value in row.items():
            # Of 1,438 examples a few are at the border between two classes.
            assert value == pytest.approx(expected[name], rel=2e-3, abs=5e-3 if "accuracy" in name else 0), row
    weights, expected = (load_file(run.folder / "weights.safetensors") for run in (found, alone))
    torch.testing.assert_close(weights, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("count", [8, 9, 13, 64])
def test_shares_are_the_batch_and_their_mean_is_its_mean(size: int, count: int) -> None:
    batch = torch.randn(count, dtype=torch.float64)
    shares = [Group(rank, size).share(count) for rank in range(size)]
    assert torch.equal(torch.cat([batch[share.part] for share in shares]), batch)
    mean = sum(batch[share.part].mean() * share.weight for share in shares) / size
    assert mean == pytest.approx(batch.mean().item())
    sizes = [share.part.stop - share.part.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_a_batch_must_do_for_all_processes() -> None:
    with pytest.raises(UsageError, match="a batch of 3 is too small for 4 processes"):
        Group(1, 4).share(3)


def together(size: int, function: Callable[..., None], *arguments: object) -> None:
    """`function(group, *arguments)` in `size` processes as torchrun starts them."""
    context = small.processes()
    port = free_port()
    members = [
        context.Process(target=_member, args=(rank, size, port, function, arguments), daemon=True)
        for rank in range(size)
    ]
    for process in members:
        process.start()
    for process in members:
        process.join(timeout=120)
        process.kill()
    assert [process.exitcode for process in members] == [0] * size


def _member(rank: int, size: int, port: int, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    torch.set_num_threads(1)
    with joined() as group:
        function(group, *arguments)


def train_in(group: Group, settings: dict[str, Any], out: Path) -> None:
    train(configure(options=settings), out, group=group)


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        SMALL | {"model": "simple-cnn", "batch_size": 101, "validation": 0.2, "patience": 2, "loss.l1": 1e-5},
        SMALL | {"model": "lean-cnn", "optimizer.name": "sgd", "optimizer.lr": 0.05, "average": 0.9},
    ],
    ids=["augmented", "validated", "batch-normalised"],
)
def test_the_same_losses_as_one_process(tmp_path: Path, size: int, settings: dict[str, Any]) -> None:
    together(size, train_in, settings, tmp_path / "run")
    assert_the_same_training(tmp_path, settings)


def normalising() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 6),
                         nn.BatchNorm1d(6, affine=False))  # fmt: skip


def normalise(group: Group, out: Path) -> None:
    """Two steps on a batch of 7, and what the module is then, in a file."""
    module, images = normalising(), torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 3 + 5
    forward, optimizer = group.wrap(module), torch.optim.SGD(module.parameters(), lr=0.1)
    share = group.share(len(images))
    for _ in range(2):
        loss = share.weigh((forward(images[share.part]) - 1).abs().pow(1.5).mean())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    torch.save(module.state_dict() | {"loss": group.mean(loss.detach())}, out / f"{group.rank}-of-{group.size}.pt")


def test_batch_normalisation_is_by_the_whole_batch(tmp_path: Path) -> None:
    together(3, normalise, tmp_path)
    normalise(Group(), tmp_path)
    expected = torch.load(tmp_path / "0-of-1.pt")
    for rank in range(3):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}-of-3.pt"), expected, rtol=1e-4, atol=1e-5)


def train_on_what_is_there(group: Group, out: Path, mnist: Path) -> None:
    """The leader's machine has no MNIST, the other one has."""
    os.environ["DEPLOYPIPE_DATA_DIR"] = str(mnist if group.rank else out.parent / "empty")
    datasets.MNIST.mirrors = ["http://127.0.0.1:9/"]  # the discard port: refused at once
    train(configure(options=SMALL | {"data": "auto", "epochs": 1}), out, group=group)


def test_the_leader_decides_what_auto_is(tmp_path: Path, mnist_dir: Path) -> None:
    together(2, train_on_what_is_there, tmp_path / "run", mnist_dir)
    assert open_run(tmp_path / "run").document["dataset"]["name"] == "digits"


def train_on_other_data(group: Group, out: Path) -> None:
    def spoilt(folder: Path) -> tuple[Split, Split]:
        train, test = digits(folder)
        train.inputs[0, 0, 0, 0] = 1
        return train, test

    digits = embedded.digits
    if group.rank:
        embedded.digits = spoilt
    with pytest.raises(DataError, match="different data: the sha256 of digits in process 1 is not that of process 0"):
        train(configure(options=SMALL), out, group=group)


def test_two_machines_do_not_train_on_different_data(tmp_path: Path) -> None:
    together(2, train_on_other_data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def train_where_it_is_refused(group: Group, out: Path) -> None:
    expected = (UsageError, "is no run") if group.leads else (TrainingError, "the leading process stopped: .* no run")
    with pytest.raises(expected[0], match=expected[1]):
        train(configure(options=SMALL), out, group=group)


def test_all_processes_say_why_the_leader_refuses(tmp_path: Path) -> None:
    (tmp_path / "run" / "exports").mkdir(parents=True)
    together(2, train_where_it_is_refused, tmp_path / "run")


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


@pytest.mark.nightly
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
