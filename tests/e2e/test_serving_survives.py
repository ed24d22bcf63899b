"""What a running server survives. The scenarios are those of `benchmarks/serving/survival.py`, which prints figures."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import survival
from fuzzed_bodies import bodies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_http import Connection, request
from served_models import Models, png

from deploypipe.client import Client
from deploypipe.contract.server import Server
from deploypipe.serve.service.limits import MAX_BODY
from deploypipe.serve.torchserve.diagnosis import worker_error
from deploypipe.serve.torchserve.folder import Layout
from deploypipe.serve.torchserve.readiness import status

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors, mounts file systems")
OPTIONS = {"models": ["onnx"], "workers": 1}


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with survival.serving(store, tmp_path_factory.mktemp("server"), **OPTIONS) as started:
        yield started


def test_a_killed_worker_costs_its_batch_and_no_more(server: Server) -> None:
    found = survival.killed_worker(server, "onnx", before=1, after=0.5)
    # 16 clients have 16 requests under way: those in the dead worker's batch, and those it was just given.
    assert found["lost"] <= survival.CONNECTIONS * 2, found
    assert found["wrong answers"] == 0


def test_our_client_recovers_what_a_killed_worker_lost(server: Server) -> None:
    found = survival.killed_worker_and_our_client(server, "onnx", seconds=1)
    assert found["failed"] == 0, found


def test_the_archive_may_go_once_it_is_loaded(server: Server) -> None:
    found = survival.archive_gone(server, "onnx")
    assert found["overwritten: right"] == found["overwritten: requests"] > 0, found
    assert found["deleted: wrong answers"] == 0, found
    assert status(folder=server.folder).ready


def test_a_worker_that_restarts_proves_itself_anew(models: Models, server: Server) -> None:
    (unpacked,) = server.scratch.glob("models/*/classifier.onnx")
    content = unpacked.read_bytes()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    unpacked.write_bytes(bytes(changed))
    (worker,) = survival.workers_of(server)
    worker.kill()
    survival.wait_for(lambda: "ArchiveInvalid" in worker_error(Layout(server.folder)), "the worker's refusal")
    found = status(folder=server.folder, timeout=2)
    assert not found.ready and found.message
    unpacked.write_bytes(content)
    survival.wait_for(lambda: status(folder=server.folder, timeout=5).ready, "the worker's return")
    (prediction,) = Client(server.url, "onnx").predict([png(models.images[0])])
    assert np.allclose(prediction.probabilities, models.probabilities([0])[0], atol=1e-4)


def test_clients_that_hold_their_connections_hold_up_nobody(server: Server) -> None:
    found = survival.slow_clients(server, "onnx", seconds=1)
    assert found["requests meanwhile"] > 0 and found["not right"] == 0, found


def _fuzz(models: Models, server: Server, examples: int) -> None:
    """Each body is under way together with a good one, so that they may share a batch."""
    neighbour = request(png(models.images[0]))
    wanted = models.probabilities([0])[0]
    kinds = st.sampled_from(["application/json", "image/png", "application/octet-stream", "text/plain"])

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(body=bodies, kind=kinds)
    def send(body: bytes, kind: str) -> None:
        with Connection(server) as one:
            one.send(request(body, f"Content-Type: {kind}"))
            beside.send(neighbour)
            answer, other = one.answer(), beside.answer()
        assert answer and answer.status in (200, 400, 415, 422), answer
        assert answer.status == 200 or json.loads(answer.body)["error"]
        assert other and np.allclose(json.loads(other.body)["probabilities"], wanted, atol=1e-4)

    with Connection(server) as beside:
        send()


def test_whatever_is_sent_costs_no_neighbour(models: Models, server: Server) -> None:
    _fuzz(models, server, 200)


@pytest.mark.soak
def test_ten_thousand_bodies_cost_no_neighbour(models: Models, server: Server) -> None:
    _fuzz(models, server, 10_000)


def test_a_batch_of_the_largest_bodies_is_answered(server: Server) -> None:
    found = survival.large_bodies(server, "onnx", MAX_BODY, counts=(64,))
    (answered,) = [value for figure, value in found.items() if "by status" in figure]
    assert "{415: 64}" in answered, found
    assert status(folder=server.folder).ready


def _is_flat(found: survival.Figures) -> None:
    assert found["not right"] == 0, found
    descriptors, megabytes = found["descriptors"], found["megabytes"]
    assert max(descriptors) - min(descriptors) <= 20, found
    half = len(megabytes) // 2
    assert max(megabytes[half:]) <= max(megabytes[:half]) * 1.25 + 64, found
    assert found["log bytes"] < 1_000_000, found


@LINUX
def test_a_steady_load_leaves_memory_and_descriptors_flat(server: Server) -> None:
    _is_flat(survival.steady_load(server, "onnx", seconds=6))


@pytest.mark.soak
@LINUX
def test_half_an_hour_of_load_leaves_memory_and_descriptors_flat(server: Server) -> None:
    seconds = float(os.environ.get("DEPLOYPIPE_SOAK_SECONDS", 30 * 60))
    found = survival.steady_load(server, "onnx", seconds)
    print(found)
    _is_flat(found)


@pytest.mark.soak  # its short form is in test_serving_lifecycle.py
def test_a_killed_front_end_is_seen_and_started_anew(store: Path, tmp_path: Path) -> None:
    found = survival.killed_front_end(store, tmp_path / "server", **OPTIONS)
    assert found["status says"] == "killed"
    assert found["ready then"] and found["processes left of the first"] == 0, found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with contextlib.ExitStack() as mounted:
        try:
            yield mounted.enter_context(survival.small_disk(tmp_path / "disk"))
        except PermissionError as cause:
            pytest.skip(f"no file system can be mounted here: {cause}")


@LINUX
def test_a_full_disk_stops_no_answers(store: Path, disk: Path) -> None:
    with survival.serving(store, disk / "server", **OPTIONS) as server:
        found = survival.full_disk(server, "onnx")
    assert found["right"] == found["requests"] > 0, found
    assert found["wrong answers"] == 0, found
