"""A server that is stopped under load: what it accepted is answered, what it does not accept is told so at once."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from hammering import Hammer
from served_models import TIMEOUT, Models, npy, png

from deploypipe.archives.pack import build_archive
from deploypipe.contract.server import Server, recorded
from deploypipe.errors import ServingError
from deploypipe.serve import processes
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.management import Management
from deploypipe.serve.torchserve.readiness import status
from deploypipe.serve.torchserve.stopping import stop

MANY = 2000
"""Images in one request that keeps a worker busy for a while, and makes others wait."""


@pytest.fixture
def store(models: Models, tmp_path: Path) -> Path:
    build_archive(models.artifacts["onnx"], "one", store=tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A server's folder; whatever a failing test left running in it is stopped."""
    yield (tmp_path / "server").resolve()
    with contextlib.suppress(ServingError):
        stop(folder=tmp_path / "server", drain=0)


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """One for all threads: to make one takes longer than many a request."""
    with httpx.Client(timeout=TIMEOUT, trust_env=False, limits=httpx.Limits(max_connections=None)) as client:
        yield client


Asked = list[Future[httpx.Response]]


def _accepted(
    pool: ThreadPoolExecutor, http: httpx.Client, server: Server, models: Models, *, answering: bool = True
) -> Asked:
    """Eight requests that keep a worker busy, one of them in its hands, and twenty that wait behind them. Not
    `answering`, the worker hangs."""
    url = f"{server.url}/predictions/one"
    many = npy(np.broadcast_to(models.images[0, 0].numpy(), (MANY, 28, 28)))
    (worker,) = (member for member in processes.members(server.process) if member.pid != server.pid)
    worker.suspend()  # however fast it is, all of them are there before it answers the first
    asked = [pool.submit(http.post, url, content=many) for _ in range(8)]
    _wait_until_waiting(server, 7)
    asked += [pool.submit(http.post, url, content=png(models.images[0])) for _ in range(20)]
    _wait_until_waiting(server, 27)
    if answering:
        worker.resume()
    return asked


def _wait_until_waiting(server: Server, requests: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    management = Management(server)
    while (loaded := management.loaded("one", "1.0")) and loaded.waiting < requests:
        assert time.monotonic() < deadline, loaded
        time.sleep(0.01)


def _check_answered(asked: Asked, models: Models) -> None:
    for future in asked:
        response = future.result(timeout=TIMEOUT)
        assert response.status_code == 200, response.text
        found = response.json()
        answers = found.get("predictions", [found])
        assert len(answers) in (1, MANY)
        probabilities = np.array([answer["probabilities"] for answer in answers])
        assert np.allclose(probabilities, models.probabilities([0])[0], atol=1e-5)


def test_stop_answers_what_was_accepted_and_turns_the_rest_away(
    store: Path, folder: Path, http: httpx.Client, models: Models
) -> None:
    server = start(store, port=0, folder=folder, workers=1, batch=1, timeout=TIMEOUT)
    with ThreadPoolExecutor(28) as pool:
        accepted = _accepted(pool, http, server, models)
        with Hammer(f"{server.url}/predictions/one", png(models.images[0]), 4) as hammer:
            assert stop(folder=folder, drain=TIMEOUT).drained
        _check_answered(accepted, models)
    outcomes = {asked.status for asked in hammer.asked}
    assert 503 in outcomes and outcomes <= {200, 503, 0, -1}
    # Cut off at the very end are only requests that TorchServe had not accepted: it took none since the first refusal.
    refused = min(asked.sent for asked in hammer.asked if asked.status == 503)
    assert all(asked.sent > refused for asked in hammer.asked if asked.status == -1)


def test_a_signal_to_serve_answers_what_was_accepted(
    store: Path, folder: Path, http: httpx.Client, models: Models
) -> None:
    code = (
        "import sys; from pathlib import Path; from deploypipe.serve.torchserve.lifecycle import serve_foreground\n"
        "store, folder = map(Path, sys.argv[1:])\n"
        "serve_foreground(store, lambda server: print('ready', flush=True), drain=180,\n"
        "                 port=0, folder=folder, workers=1, batch=1, timeout=600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(store), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    server = recorded(folder)
    assert server is not None
    with ThreadPoolExecutor(28) as pool:
        accepted = _accepted(pool, http, server, models)
        process.send_signal(signal.SIGTERM)
        _check_answered(accepted, models)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    assert status(folder=folder).state == "stopped"


def test_what_is_not_answered_in_time_is_cut_and_said(
    store: Path, folder: Path, http: httpx.Client, models: Models
) -> None:
    server = start(store, port=0, folder=folder, workers=1, batch=1, timeout=TIMEOUT)
    with ThreadPoolExecutor(28) as pool:
        accepted = _accepted(pool, http, server, models, answering=False)
        assert not stop(folder=folder, drain=0.1).drained
        assert any(future.exception(timeout=TIMEOUT) is not None for future in accepted)
