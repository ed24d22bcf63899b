"""Starting and stopping real servers: side by side, failing, interrupted, killed. Nothing stays behind."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from served_models import TIMEOUT, Models, packed_with_wrong_samples, png

from deploypipe.archives.pack import build_archive
from deploypipe.client import Client
from deploypipe.contract.server import Server
from deploypipe.errors import ServingError
from deploypipe.serve.torchserve.deployment import deploy
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.readiness import status
from deploypipe.serve.torchserve.stopping import Stopped, stop


@pytest.fixture
def one_model(models: Models, tmp_path: Path) -> Path:
    build_archive(models.artifacts["torchscript"], "one", store=tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A server's folder; whatever a failing test left running in it is stopped."""
    yield tmp_path / "server"
    with contextlib.suppress(ServingError):
        stop(folder=tmp_path / "server", grace=0)


def _session(pid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _status_of(url: str, body: bytes) -> int:
    return httpx.post(url, content=body, timeout=TIMEOUT, trust_env=False).status_code


def test_two_servers_side_by_side_and_stop_ends_exactly_one(
    server: Server, one_model: Path, folder: Path, models: Models
) -> None:
    other = start(one_model, port=0, folder=folder, workers=1, batch=1, queue=2, timeout=TIMEOUT)
    assert other.port != server.port
    members = _session(other.pid)
    assert len(members) == 2, members  # the JVM and its worker
    (prediction,) = Client(other.url, "one").predict([png(models.images[0])])
    assert prediction.label == models.probabilities([0])[0].argmax()
    with pytest.raises(ServingError, match="runs already"):
        start(one_model, port=0, folder=folder)

    # Started so that nothing can be loaded or unloaded later.
    newer = build_archive(models.artifacts["torchscript"], "one", "2.0", store=folder.parent)
    with pytest.raises(ServingError, match="one 2.0 does not load: this server was started so that nothing can be"):
        deploy(newer.path, folder=folder)
    assert httpx.delete(f"{other.management_url}/models/one/1.0", trust_env=False).status_code == 405
    assert [path.name for path in one_model.iterdir()] == ["one-1.0.mar"]

    # Overload: a queue of 2 is full at once. What is not taken is refused at once, and our client comes back.
    body = png(models.images[0])
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(lambda _: _status_of(f"{other.url}/predictions/one", body), range(128)))
    assert set(statuses) == {200, 503}
    assert len(Client(other.url, "one").predict([body] * 32)) == 32

    for each in (server, other):
        page = httpx.get(each.metrics_url, timeout=TIMEOUT, trust_env=False).text
        counted = set(re.findall(r'^deploypipe_workers\{model="(\w+)"', page, re.MULTILINE))
        assert counted == {archive.name for archive in each.archives}

    assert stop(folder=folder) == Stopped(other, drained=True)
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in members)
    assert not _session(other.pid)
    assert not other.scratch.exists()
    assert status(folder=folder).state == "stopped"
    assert httpx.get(f"{server.url}/ping", trust_env=False).status_code == 200
    with pytest.raises(ServingError, match="no server in"):
        stop(folder=folder)
    with pytest.raises(ServingError, match=r"no server at .*`deploypipe serve`"):
        Client(other.url, "one").predict([b"x"])


def test_a_killed_server_is_seen_and_the_next_start_is_clean(one_model: Path, folder: Path, models: Models) -> None:
    first = start(one_model, port=0, folder=folder, workers=1, timeout=TIMEOUT)
    os.kill(first.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (found := status(folder=folder)).state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found.state == "killed"
    assert not found.ready
    assert "nobody stopped it" in found.message
    # A token guards the second one: whoever has none is turned away.
    second = start(one_model, port=first.port, folder=folder, tokens=True, timeout=TIMEOUT)
    assert status(folder=folder).ready
    assert not _session(first.pid)
    with pytest.raises(ServingError, match="Token"):
        Client(second.url, "one").predict([png(models.images[0])])
    keys = json.loads((folder / "key_file.json").read_text())
    assert Client(second.url, "one", token=keys["inference"]["key"]).predict([png(models.images[0])])
    stop(folder=folder)
    assert not (folder / "key_file.json").exists()


def test_a_server_that_hangs_is_ended_by_force(one_model: Path, folder: Path) -> None:
    hanging = start(one_model, port=0, folder=folder, workers=1, timeout=TIMEOUT)
    members = _session(hanging.pid)
    assert len(members) == 2
    for member in members:
        member.suspend()
    assert not status(folder=folder, timeout=1).ready
    stop(folder=folder, grace=0.5)
    assert not _session(hanging.pid)


def test_a_model_that_fails_its_proof_is_named_with_its_own_error(models: Models, tmp_path: Path, folder: Path) -> None:
    packed_with_wrong_samples(models.artifacts["torchscript"], "wrong", "1.0", tmp_path / "store")
    with pytest.raises(
        ServingError, match=r"wrong_1.0: ArchiveInvalid: wrong 1.0 does not answer its packaged sample .*'logits'"
    ):
        start(tmp_path / "store", port=0, folder=folder, timeout=TIMEOUT)
    assert status(folder=folder).state == "stopped"
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]


def test_a_taken_port_is_refused_before_anything_starts(one_model: Path, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} is taken"):
            start(one_model, port=port, folder=folder)
    assert not (folder / "logs").exists()


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, "while it starts"),
        (signal.SIGINT, "while it serves"),
        pytest.param(signal.SIGINT, "while it starts", marks=pytest.mark.nightly),
        pytest.param(signal.SIGTERM, "while it serves", marks=pytest.mark.nightly),
    ],
)
def test_an_interrupted_server_leaves_nothing(one_model: Path, folder: Path, number: int, moment: str) -> None:
    code = (
        "import sys; from pathlib import Path; from deploypipe.serve.torchserve.lifecycle import serve_foreground\n"
        "store, folder = map(Path, sys.argv[1:])\n"
        "serve_foreground(store, lambda server: print('ready', flush=True), port=0, folder=folder, timeout=600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(one_model), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    assert process.stdout is not None
    if moment == "while it serves":
        assert process.stdout.readline() == "ready\n", process.communicate()
    record = folder / "server.json"
    deadline = time.monotonic() + TIMEOUT
    while not record.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    pid = json.loads(record.read_text())["process"]["pid"]
    assert _session(pid)
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT)
    wanted = 0 if moment == "while it serves" else {signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 143}[number]
    assert process.returncode == wanted, errors
    assert not _session(pid)
    assert {path.name for path in folder.iterdir()} <= {"logs", "lock", "config.properties", "log4j2.xml"}
    assert not list(one_model.glob(".*"))
