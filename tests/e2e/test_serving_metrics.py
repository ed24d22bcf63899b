"""What a scrape says is what was sent, whatever dies meanwhile; and what the logs say of it."""

import http.client
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from serve.without_server import rewrite
from served_models import TIMEOUT, Models, npy, png

from deploypipe.archives.pack import build_archive
from deploypipe.archives.travel import travelling_files
from deploypipe.contract.archive import ENTRY_FILE
from deploypipe.contract.server import Server
from deploypipe.serve import processes
from deploypipe.serve.torchserve import log4j
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.stopping import stop

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
MODEL = {"model": "metered", "version": "2.1"}

_ENTRY = """
import os, signal

class Faulty(Entry):
    def initialize(self, context):
        super().initialize(context)
        self.model._read, self._sound = self._faulty, self.model._read

    def _faulty(self, body):
        if body == b"fail":
            raise LookupError("as told,\\nin two lines")
        if body == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        if body == b"shout":
            for _ in range(400):
                print("x" * 10_100)
        return self._sound(body)

del Entry, Handler
"""
"""Goes wrong where it is told to."""


SOAK_REQUESTS = 1_000_000


@pytest.fixture(scope="module")
def store(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    archive = build_archive(models.artifacts["onnx"], MODEL["model"], MODEL["version"], store=folder)
    rewrite(archive.path, {ENTRY_FILE: travelling_files("onnx")[ENTRY_FILE] + _ENTRY.encode()})
    return folder


@pytest.fixture(scope="module")
def metered(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("metered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log4j, "FILE_SIZE", 400_000)  # so that rotation is soon to be seen
        started = start(store, port=0, folder=folder, workers=2, timeout=TIMEOUT)
    yield started
    stop(folder=folder)


Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def _scrape(server: Server) -> Samples:
    text = httpx.get(server.metrics_url, timeout=TIMEOUT, trust_env=False).raise_for_status().text
    # By hand: prometheus_client's own parser gives TorchServe's counters other names.
    return {
        (name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))): float(value)
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
    }


def _of(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all samples of that name that have these labels."""
    return sum(value for (found, pairs), value in samples.items() if found == name and labels.items() <= set(pairs))


def _post(server: Server, body: bytes, **headers: str) -> int:
    url = f"{server.url}/predictions/{MODEL['model']}"
    return httpx.post(url, content=body, headers=headers, timeout=TIMEOUT, trust_env=False).status_code


def _eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if check():
                return
        except (httpx.HTTPError, OSError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _workers(server: Server) -> list[psutil.Process]:
    return [process for process in processes.members(server.process) if process.pid != server.pid]


def test_a_scrape_says_what_was_sent(metered: Server, models: Models) -> None:
    before = _scrape(metered)
    images = [png(image) for image in models.images]
    bad = {b"": 400, b"{}": 422, b"no image": 415, b"fail": 500}
    with ThreadPoolExecutor(16) as pool:
        statuses = Counter(pool.map(lambda body: _post(metered, body), [*images, *bad, *images, *bad]))
    assert _post(metered, npy(models.images[:5, 0].numpy())) == 200
    assert statuses == {200: 2 * len(images), **dict.fromkeys(bad.values(), 2)}
    after = _scrape(metered)

    def more(name: str, **labels: str) -> float:
        return _of(after, name, **MODEL, **labels) - _of(before, name, **MODEL, **labels)

    total = sum(statuses.values()) + 1
    assert more("deploypipe_requests_total") == total
    assert more("deploypipe_requests_total", status="200", error="") == statuses[200] + 1
    assert more("deploypipe_requests_total", status="500", error="LookupError") == 2
    for status in ("400", "415", "422"):
        assert more("deploypipe_requests_total", status=status, error="") == 2
    labels = models.probabilities().argmax(1).tolist()
    for index, count in Counter([*labels, *labels, *labels[:5]]).items():
        assert more("deploypipe_predictions_total", **{"class": str(index)}) == count
    assert more("deploypipe_predictions_total") == 2 * len(images) + 5
    assert more("deploypipe_handler_latency_seconds_count") == total
    assert more("deploypipe_batch_size_sum") == total
    assert 1 <= more("deploypipe_batch_size_count") <= total
    assert more("deploypipe_end_to_end_latency_seconds_count") == 0
    assert _of(after, "deploypipe_workers", **MODEL) == 2
    assert _of(after, "deploypipe_model_info", **MODEL, artifact=models.artifacts["onnx"].name) == 1


def test_a_p99_can_be_computed_and_holds_the_truth(metered: Server, models: Models) -> None:
    """As Prometheus's histogram_quantile does it, from the buckets."""
    before, body = _scrape(metered), npy(models.images[:, 0].numpy().repeat(10, 0))
    for _ in range(20):
        assert _post(metered, body) == 200
    after = _scrape(metered)
    name = "deploypipe_handler_latency_seconds_bucket"
    bounds = sorted({float(dict(pairs)["le"]) for found, pairs in after if found == name})
    counts = {
        bound: sum(
            value - before.get(key, 0)
            for key, value in after.items()
            if key[0] == name and MODEL.items() <= set(key[1]) and float(dict(key[1])["le"]) == bound
        )
        for bound in bounds
    }
    assert counts[bounds[-1]] == 20
    p99 = next(bound for bound in bounds if counts[bound] >= 0.99 * 20)
    first, last = (_of(samples, "deploypipe_handler_latency_seconds_sum") for samples in (before, after))
    assert (last - first) / 20 <= p99 <= 10
    assert counts[bounds[0]] == 0  # 640 images take more than 0.1 ms


def test_a_proxy_that_says_when_a_request_came_gets_the_whole_latency(metered: Server, models: Models) -> None:
    before, body = _scrape(metered), png(models.images[0])
    for text in (f"t={time.time() - 2:.3f}", f"{(time.time() - 2) * 1000:.0f}", f"t={(time.time() - 2) * 1e6:.0f}"):
        assert _post(metered, body, **{"X-Request-Start": text}) == 200
    for text in ("", "t=", "yesterday", "t=0", "t=-1", "9" * 400, f"t={time.time() + 100}"):
        assert _post(metered, body, **{"x-request-start": text}) == 200
    after = _scrape(metered)
    name = "deploypipe_end_to_end_latency_seconds"
    assert _of(after, f"{name}_count") - _of(before, f"{name}_count") == 3
    assert 6 <= _of(after, f"{name}_sum") - _of(before, f"{name}_sum") < 60


def test_the_page_holds_the_front_end_too_and_only_loopback_sees_it(metered: Server) -> None:
    samples = _scrape(metered)
    assert _of(samples, "ts_inference_requests_total", model_name="metered") > 0
    assert _of(samples, "ts_queue_latency_microseconds", model_name="metered") > 0
    port = int(metered.metrics_url.rsplit(":", 1)[1].split("/")[0])
    listening = {
        connection.laddr.ip
        for process in _workers(metered)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert listening == {"127.0.0.1"}
    assert httpx.get(metered.metrics_url.replace("/metrics", "/other"), trust_env=False).status_code == 404


def test_counters_outlive_killed_workers_and_the_log_tells(metered: Server, models: Models) -> None:
    """All workers, one idle and one at work: whichever of them listens is among them."""
    for image in models.images[:10]:
        assert _post(metered, png(image)) == 200
    before, told_before = _scrape(metered), len(_log(metered, "server"))
    idle = _workers(metered)[0]
    idle.kill()
    idle.wait(10)
    assert _post(metered, b"die") >= 500
    _eventually(lambda: _of(_scrape(metered), "deploypipe_workers") == 2)
    assert _post(metered, png(models.images[0])) == 200
    after = _scrape(metered)
    lasting = [key for key in before if key[0].startswith("deploypipe_")]
    assert lasting
    assert all(after[key] >= before[key] for key in lasting)
    answered = [_of(samples, "deploypipe_requests_total", status="200", **MODEL) for samples in (before, after)]
    assert answered[1] == answered[0] + 1
    assert len(list((metered.scratch / "metrics").glob("*.db"))) == 2 * 4  # who follows goes on with the same files

    told = [event["message"] for event in _log(metered, "server")[told_before:]]
    assert any("Worker disconnected" in message for message in told)
    assert any(message.startswith("Retry worker") for message in told)
    assert any("Auto recovery succeeded" in message for message in told)
    assert f"Inference API bind to: {metered.url}" in [event["message"] for event in _log(metered, "server")]


def test_the_dashboard_asks_for_nothing_that_is_not_there(metered: Server) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked += [item["query"]["query"] for item in dashboard["templating"]["list"] if item["type"] == "query"]
    names = {name for text in asked for name in re.findall(r"\b(?:deploypipe|ts|Requests)\w+", text)}
    assert len(names) >= 8
    text = httpx.get(metered.metrics_url, trust_env=False).text
    there = set(re.findall(r"^(\w+)(?:\{| )", text, re.MULTILINE)) | set(
        re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)
    )
    assert names <= there, names - there


def _log(server: Server, name: str) -> list[dict[str, str]]:
    """Every whole line, each of which must be JSON."""
    text = (server.folder / "logs" / f"{name}.log").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _log_sizes(server: Server) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (server.folder / "logs").iterdir() if path.is_file()}


def _quiet(server: Server) -> bool:
    """TorchServe has written all that its workers printed."""
    before = _log_sizes(server)
    time.sleep(0.5)
    return _log_sizes(server) == before


def test_the_logs_say_what_matters_in_one_line_each(metered: Server, models: Models) -> None:
    server_lines, worker_lines = len(_log(metered, "server")), len(_log(metered, "workers"))
    for body in (*map(png, models.images[:30]), b"", b"no image", b"{}"):
        _post(metered, body)
    assert (len(_log(metered, "server")), len(_log(metered, "workers"))) == (server_lines, worker_lines)

    assert _post(metered, b"fail") == 500
    _eventually(lambda: len(_log(metered, "workers")) > worker_lines)
    (failure,) = _log(metered, "workers")[worker_lines:]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", failure["time"])
    assert re.fullmatch(r"W-\d+-metered_2\.1-stdout", failure["worker"])
    assert failure["message"].startswith("ERROR ")
    assert "\nTraceback (most recent call last):\n  File " in failure["message"]
    assert failure["message"].endswith("\nLookupError: as told,\nin two lines")


def test_the_logs_are_rotated_and_bounded(metered: Server) -> None:
    """The last test of the file: it rotates away what the others look for."""
    for _ in range(2):
        _post(metered, b"shout")
    _eventually(lambda: _quiet(metered) and f"workers.{log4j.OLDER_FILES}.log" in _log_sizes(metered))
    sizes = _log_sizes(metered)
    assert {name for name in sizes if name.startswith("workers")} == {"workers.log", "workers.1.log", "workers.2.log"}
    assert all(size <= 400_000 + 6 * log4j.LONGEST + 1000 for name, size in sizes.items() if name != "console.log")
    assert sizes["console.log"] < 10_000
    assert all(_log(metered, name) for name in ("workers", "workers.1", "workers.2", "server"))


@pytest.mark.soak
def test_a_million_requests_leave_little_in_the_logs(store: Path, models: Models, tmp_path: Path) -> None:
    """One in ten is refused, one in a hundred fails with a traceback, and four workers are killed on the way."""
    server = start(store, port=0, folder=tmp_path / "server", workers=2, timeout=TIMEOUT)
    try:
        before = _scrape(server)
        good = [png(image) for image in models.images]
        bodies = [b"fail" if i % 100 == 0 else b"no image" if i % 10 == 0 else good[i % 64] for i in range(1600)]
        statuses: Counter[int] = Counter()
        for part in range(5):
            if part:
                _post(server, b"die")
                _eventually(lambda: _of(_scrape(server), "deploypipe_workers") == 2)
            with ThreadPoolExecutor(16) as pool:
                starts = [bodies[100 * thread :] for thread in range(16)]
                statuses.update(sum(pool.map(_send, [server] * 16, starts, [SOAK_REQUESTS // 80] * 16), Counter()))
        assert statuses.total() == SOAK_REQUESTS // 80 * 80
        assert set(statuses) == {200, 415, 500}
        after = _scrape(server)
        for status, count in statuses.items():
            name = "deploypipe_requests_total"
            assert _of(after, name, status=str(status)) - _of(before, name, status=str(status)) == count
        size = sum(_log_sizes(server).values())
        print(f"{statuses.total()} requests, {dict(statuses)}: {size} bytes of logs")
        assert size < min(log4j.MOST_BYTES, 50e6)
    finally:
        stop(folder=tmp_path / "server")


def _send(server: Server, bodies: list[bytes], count: int) -> Counter[int]:
    """`count` requests, one after the other over a connection that is kept where the server keeps it."""
    statuses: Counter[int] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    for body in itertools.islice(itertools.cycle(bodies), count):
        connection.request("POST", f"/predictions/{MODEL['model']}", body)
        response = connection.getresponse()
        response.read()
        statuses[response.status] += 1
    connection.close()
    return statuses
