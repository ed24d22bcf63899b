"""Whose process, whose record, whose files: a server is recognised whatever the clock does, and what belongs to another
one is left alone. Nothing here starts TorchServe."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from without_server import rewrite

from deploypipe.archives.pack import build_archive
from deploypipe.contract.archive import ENTRY_FILE, read_archive
from deploypipe.contract.server import ProcessIdentity, Server, recorded
from deploypipe.errors import ServingError
from deploypipe.serve import processes
from deploypipe.serve.torchserve.capacity import queue_for
from deploypipe.serve.torchserve.folder import Layout, clean, fresh_logs, locked
from deploypipe.serve.torchserve.readiness import status
from deploypipe.serve.torchserve.stopping import stop

LIMIT = 120
"""Seconds for what takes one or two on a machine that has nothing else to do."""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ProcessIdentity]:
    """A process that waits to be ended, in a session of its own."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    found = processes.launch(command, tmp_path, dict(os.environ), tmp_path / "output")
    yield found
    processes.end(found, grace=5)


def _record(folder: Path, process: ProcessIdentity) -> Server:
    """A server with that process, recorded, and with a temporary file."""
    server = Server(folder, process, "127.0.0.1", 1, 2, 3, folder, folder / "tmp", False, ())
    server.scratch.mkdir(parents=True, exist_ok=True)
    (server.scratch / "socket").touch()
    server.write()
    return server


def test_a_process_is_known_by_its_start_too(process: ProcessIdentity) -> None:
    """Else `stop` would end whatever got the number of a server that is long gone."""
    for another in (dataclasses.replace(process, started=process.started - 1), dataclasses.replace(process, boot="x")):
        assert not processes.alive(another)
        assert not processes.members(another)
        processes.end(another, grace=5)
    assert processes.alive(process)
    assert [member.pid for member in processes.members(process)] == [process.pid]
    processes.end(process, grace=5)
    assert not processes.alive(process)  # a zombie is not alive


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is only the wall clock's time")
@pytest.mark.parametrize("seconds", [-1.0, 1.0, 86400.0])
def test_a_clock_that_steps_hides_no_process(
    process: ProcessIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    # psutil adds ticks to the time of the boot, which Linux works out from the wall clock.
    truth = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: truth(self) + seconds)
    folder = tmp_path / "server"
    _record(folder, process)
    assert status(folder=folder).state == "running"
    stop(folder=folder, drain=0, grace=5)
    assert not psutil.pid_exists(process.pid) or not processes.alive(process)
    assert recorded(folder) is None


def test_what_follows_in_the_folder_is_not_removed(process: ProcessIdentity, tmp_path: Path) -> None:
    gone = _record(tmp_path, dataclasses.replace(process, started=process.started - 100))
    following = _record(tmp_path, process)
    clean(gone)
    assert recorded(tmp_path) == following and (following.scratch / "socket").exists()
    clean(following)
    assert recorded(tmp_path) is None and not following.scratch.exists()


def test_a_stop_beside_a_start_leaves_the_new_server_alone(process: ProcessIdentity, tmp_path: Path) -> None:
    """`stop` has read the old record and ended the old server when the start puts its own record there."""
    _record(tmp_path, process)
    with pytest.MonkeyPatch.context() as patch:
        end = processes.end

        def end_while_another_starts(process: ProcessIdentity, grace: float) -> None:
            end(process, grace)
            _record(tmp_path, following)

        following = dataclasses.replace(process, started=process.started + 1)
        patch.setattr(processes, "end", end_while_another_starts)
        stop(folder=tmp_path, drain=0, grace=5)
    found = recorded(tmp_path)
    assert found is not None and found.process == following and (found.scratch / "socket").exists()


def test_a_stop_waits_for_the_lock(process: ProcessIdentity, tmp_path: Path) -> None:
    _record(tmp_path, process)
    code = "import sys; from pathlib import Path; from deploypipe.serve.torchserve.stopping import stop\n"
    code += "stop(folder=Path(sys.argv[1]), drain=0, grace=5)\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with locked(tmp_path):
        stopping = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
        deadline = time.monotonic() + LIMIT
        while processes.alive(process) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        assert stopping.poll() is None and recorded(tmp_path) is not None
    assert stopping.wait(LIMIT) == 0
    assert recorded(tmp_path) is None


def test_one_change_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ServingError, match="another start or deployment is under way"):
        locked(tmp_path, wait=0.2).__enter__()
    with locked(tmp_path):
        pass


def test_the_logs_of_the_last_servers_are_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for said in ("first", "second", "third", "fourth"):
        fresh_logs(layout)
        assert not list(layout.logs.iterdir())
        layout.console.write_text(said)
    found = {path.parent.name: path.read_text() for path in tmp_path.glob("logs*/console.log")}
    assert found == {"logs": "fourth", "logs.1": "third", "logs.2": "second"}


def test_an_archive_is_timed_without_our_secrets(
    artifacts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    archive = build_archive(artifacts["onnx"], "curious", store=tmp_path)
    entry = (
        f"import json, os\nopen({str(tmp_path / 'seen')!r}, 'w').write(json.dumps(dict(os.environ)))\nprint('a', 1)\n"
    )
    entry += "from archived.formats.onnx.read import read\nfrom archived.serve.torchserve.handler import Handler\n"
    entry += "class Entry(Handler):\n    def __init__(self): super().__init__(read)\n"
    rewrite(archive.path, {ENTRY_FILE: entry.encode()})
    assert queue_for([read_archive(archive.path)], 1, 8, "cpu", 200.0) > 10
    seen = json.loads((tmp_path / "seen").read_text())
    assert "SECRET_TOKEN" not in seen and seen["OMP_NUM_THREADS"] == "1"


def _hanging(artifacts: dict[str, Path], folder: Path) -> Path:
    """A store with an archive whose handler never ends loading; it writes its process's number into `loading`."""
    archive = build_archive(artifacts["onnx"], "hanging", store=folder / "store")
    entry = f"import os, time\nopen({str(folder / 'loading')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    rewrite(archive.path, {ENTRY_FILE: entry.encode()})
    return archive.path.parent


def test_an_archive_that_hangs_is_not_waited_for(artifacts: dict[str, Path], tmp_path: Path) -> None:
    store = _hanging(artifacts, tmp_path)
    assert queue_for([read_archive(store / "hanging-1.0.mar")], 1, 8, "cpu", 10.0, longest=3) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_server_is_started_is_obeyed_at_once(
    artifacts: dict[str, Path], tmp_path: Path, number: int
) -> None:
    store, folder = _hanging(artifacts, tmp_path), tmp_path / "server"
    code = "import sys; from pathlib import Path; from deploypipe.serve.torchserve.lifecycle import serve_foreground\n"
    code += "serve_foreground(Path(sys.argv[1]), port=0, folder=Path(sys.argv[2]))\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(store), str(folder)]
    serving = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + LIMIT
    while not ((loading := tmp_path / "loading").exists() and loading.read_text()) and time.monotonic() < deadline:
        assert serving.poll() is None
        time.sleep(0.02)
    serving.send_signal(number)
    assert serving.wait(10) == (143 if number == signal.SIGTERM else -signal.SIGINT)
    assert not psutil.pid_exists(int(loading.read_text()))
    assert not folder.exists()
