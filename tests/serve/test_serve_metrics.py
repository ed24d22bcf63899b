"""What workers count, in processes that start and die; no server."""

import io
import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from torch import Tensor
from without_server import load

from deploypipe.archives.travel import travelling_files
from deploypipe.serve.torchserve.exposition import of_workers
from deploypipe.serve.torchserve.metrics import BATCH_BUCKETS, LATENCY_BUCKETS, WorkerMetrics, ages
from deploypipe.serve.torchserve.slots import FOLDER_VARIABLE

_WORKER = """
import sys
from archived.serve.torchserve.metrics import WorkerMetrics
metrics = WorkerMetrics(sys.argv[1], "1.0", "model.onnx", "ab")
print("ready", flush=True)
for line in sys.stdin:
    metrics.batch({(200, ""): 3, (422, ""): 1}, 0.004, [])
    print("counted", flush=True)
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What travels, as it lies beside a model."""
    folder = tmp_path_factory.mktemp("unpacked")
    for name, content in travelling_files("torchscript").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


class Worker:
    """A process that counts a batch of four at each `count`."""

    def __init__(self, unpacked: Path, folder: Path, model: str = "m") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(unpacked)},
        )
        self._expect("ready")

    def count(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._expect("counted")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def _expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word


def _value(folder: Path, name: str, **labels: str) -> float:
    found = 0.0
    for text, value in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", of_workers(folder).decode(), re.MULTILINE):
        if all(f'{key}="{wanted}"' in text for key, wanted in labels.items()):
            found += float(value)
    return found


def test_workers_are_added_up_and_the_dead_still_count(unpacked: Path, tmp_path: Path) -> None:
    first, second = Worker(unpacked, tmp_path), Worker(unpacked, tmp_path)
    try:
        first.count()
        second.count()
        assert _value(tmp_path, "deploypipe_workers", model="m") == 2
        assert _value(tmp_path, "deploypipe_requests_total", status="200") == 6
        assert _value(tmp_path, "deploypipe_batch_size_count") == 2
        first.kill()
        assert _value(tmp_path, "deploypipe_workers", model="m") == 1
        assert _value(tmp_path, "deploypipe_requests_total", status="200") == 6
        files = set(tmp_path.glob("*.db"))
        first = Worker(unpacked, tmp_path)  # goes on where the dead one was
        first.count()
        assert _value(tmp_path, "deploypipe_workers") == 2
        assert _value(tmp_path, "deploypipe_requests_total", status="422") == 3
        assert set(tmp_path.glob("*.db")) == files
    finally:
        first.kill()
        second.kill()
    assert _value(tmp_path, "deploypipe_workers") == 0
    assert _value(tmp_path, "deploypipe_model_info") == 0
    assert _value(tmp_path, "deploypipe_handler_latency_seconds_count") == 12


def test_who_follows_a_dead_worker_may_hold_another_model(unpacked: Path, tmp_path: Path) -> None:
    old = Worker(unpacked, tmp_path, "old")
    old.count()
    old.kill()
    new = Worker(unpacked, tmp_path, "new")
    try:
        new.count()
        for model, workers in (("old", 0), ("new", 1)):
            assert _value(tmp_path, "deploypipe_requests_total", model=model) == 4
            assert _value(tmp_path, "deploypipe_workers", model=model) == workers
    finally:
        new.kill()


def test_files_have_no_holes(unpacked: Path, tmp_path: Path) -> None:
    """A write to a hole of a mapped file kills the process where the disk is full."""
    worker = Worker(unpacked, tmp_path)
    worker.kill()
    files = list(tmp_path.glob("*.db"))
    assert len(files) == 4
    assert all(file.stat().st_blocks * 512 >= file.stat().st_size for file in files)


@pytest.mark.parametrize("amount", [0.0, 0.0001, 0.00011, 0.02, 9.9, 10.0, 11.0])
def test_many_observations_at_once_are_as_many_by_one(amount: float) -> None:
    from deploypipe.serve.torchserve.metrics import _Histogram

    pages = []
    for kind in (Histogram, _Histogram):
        registry = CollectorRegistry()
        histogram = kind("latency", "of the same", buckets=LATENCY_BUCKETS, registry=registry)
        if isinstance(histogram, _Histogram):
            histogram.observe_times(amount, 5)
        else:
            for _ in range(5):
                histogram.observe(amount)
        pages.append(re.sub(r"(?m)^\S*(_created|_sum) .*$", "", generate_latest(registry).decode()))
    assert pages[0] == pages[1]


def test_buckets_are_fit_for_0_1_ms_to_10_s() -> None:
    assert (LATENCY_BUCKETS[0], LATENCY_BUCKETS[-1]) == (0.0001, 10.0)
    steps = [later / earlier for earlier, later in itertools.pairwise(LATENCY_BUCKETS)]
    assert all(1 < step <= 5 / 3 + 1e-9 for step in steps)
    assert list(BATCH_BUCKETS) == sorted(BATCH_BUCKETS)


class _Sent:
    """TorchServe's context, as far as headers go."""

    def __init__(self, *headers: Mapping[str, str]) -> None:
        self._headers = headers

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self._headers[idx].get(key)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"X-Request-Start": "t=999.5"}, [0.5]),
        ({"x-request-start": "999.5"}, [0.5]),
        ({"X-Request-Start": "t=1000000000999500"}, []),  # 1e9 s, as us, is not near 1000 s
        ({"X-Request-Start": "t=0"}, [1000.0]),
        ({"X-Request-Start": "t=1001"}, []),
        ({"X-Request-Start": "soon"}, []),
        ({"X-Request-Start": "1" * 400}, []),
        ({}, []),
    ],
    ids=["t=", "bare, lower case", "another clock", "an hour at most", "not come yet", "no number", "long", "none"],
)
def test_ages(headers: Mapping[str, str], found: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert ages(_Sent(headers), 1) == pytest.approx(found)


@pytest.mark.parametrize("unit", [1, 1e3, 1e6], ids=["s", "ms", "us"])
def test_ages_in_any_unit(unit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1.8e9 + 2)
    assert ages(_Sent({"X-Request-Start": f"t={1.8e9 * unit:.0f}"}, {}), 2) == pytest.approx([2.0])


def test_a_handler_counts_what_it_answers(
    artifacts: dict[str, Path], images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, context = load(artifacts["torchscript"], tmp_path)
    batches: list[Any] = []
    classes: list[int] = []
    monkeypatch.setattr(handler.metrics, "batch", lambda *arguments: batches.append(arguments))
    monkeypatch.setattr(handler.metrics, "predicted", classes.extend)
    file = io.BytesIO()
    np.save(file, images[:3].numpy())
    answers = handler.handle([{"body": body} for body in (b"{}", file.getvalue(), b"", b"")], context)
    ((outcomes, seconds, found_ages),) = batches
    assert outcomes == {(422, ""): 1, (200, ""): 1, (400, ""): 2}
    assert 0 < seconds < 60
    assert list(found_ages) == []
    assert classes == [row["class"] for row in json.loads(answers[1])["predictions"]]
    assert len(classes) == 3


def test_without_a_server_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = WorkerMetrics("m", "1.0", "model.onnx", "ab")
    metrics.batch({(200, ""): 1}, 0.1, [0.2])
    metrics.predicted([1, 1, 7])
    assert not list(tmp_path.iterdir())


def test_a_traceback_is_one_line_and_keeps_its_end(unpacked: Path) -> None:
    code = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from archived.serve.torchserve.worker_log import one_line_an_event
one_line_an_event()
for length in (20, 20_000):
    try:
        raise ValueError("x\\u2028y\\r" + "z" * length)
    except ValueError as cause:
        cause.add_note("in the end")
        logging.getLogger("here").exception("it failed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=unpacked)
    lines = done.stdout.decode().split("\n")
    assert [bool(line) for line in lines] == [True, True, False]
    assert all(len(line) < 10_000 for line in lines)
    for line in lines[:2]:
        parts = line.split("\v")
        assert parts[:2] == ["ERROR here: it failed", "Traceback (most recent call last):"]
        assert any(part.startswith("ValueError: x") for part in parts)
        assert parts[-1] == "in the end"
