"""`bench serve` against the real TorchServe."""

import json
from pathlib import Path

import pytest
from served_models import Models
from typer.testing import CliRunner

from deploypipe.bench import Load, measure, time_serving
from deploypipe.bench.payloads import requests_for
from deploypipe.cli import app
from deploypipe.contract.archive import read_archive
from deploypipe.contract.server import Server
from deploypipe.errors import ServingError, UsageError


@pytest.mark.sample(1)
@pytest.mark.parametrize("images", [1, 64])
@pytest.mark.parametrize("load", [Load(connections=4), Load(rate=20)], ids=str)
def test_every_answer_is_right_and_the_server_is_watched(
    server: Server, models: Models, load: Load, images: int
) -> None:
    labels = models.probabilities().argmax(1).tolist()
    url = f"{server.url}/predictions/onnx"
    requests = requests_for(url, models.images[:, 0], labels, images)
    done = measure(url, requests, load, seconds=1, warmup=0.5, pid=server.pid)
    assert done.sent == done.answered > 0 and not done.errors and done.unsent == 0
    assert done.images_per_request == images
    assert done.server and done.server.worker_cores > 0 and done.server.memory > 2**27
    # Only the classes are held against it: other ones, and none is right.
    others = requests_for(url, models.images[:, 0], [(label + 1) % 10 for label in labels], images)
    with pytest.raises(ServingError, match=r"none of \d+ answers .* wrong answer x\d+"):
        measure(url, others, load, seconds=0.3, pid=server.pid)


def test_the_verb_asks_for_the_packaged_samples(server: Server, store: Path, tmp_path: Path) -> None:
    argv = ["bench", "serve", "--url", server.url, "--name", "onnx", "--mar", str(store / "onnx-1.0.mar"), "--seconds",
            "0.3", "--out", str(tmp_path / "found.json"), "--connections", "1,2", "--rate", "20"]  # fmt: skip
    table = CliRunner().invoke(app, argv)
    assert table.exit_code == 0 and "2 connections" in table.stdout and "20 arrivals/s" in table.stdout, table.output
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads(CliRunner().invoke(app, [*argv, "--json"]).stdout)
    assert document["schema"] == "deploypipe.bench.serving/1" and len(document["measurements"]) == 3
    assert all(not row["errors"] and row["sent"] == row["answered"] for row in document["measurements"])


def test_without_loads_the_rates_come_from_what_was_reached(server: Server, store: Path) -> None:
    found = time_serving(server.url, "onnx", seconds=0.3, warmup=0.2, archive=read_archive(store / "onnx-1.0.mar"))
    closed, opened = found.measurements[:3], found.measurements[3:]
    assert [done.load.connections for done in closed] == [1, 8, 64]
    most = max(done.requests_per_second for done in closed)
    assert [done.load.rate for done in opened] == pytest.approx([0.2 * most, 0.4 * most, 0.6 * most, 0.8 * most], abs=6)


def test_what_cannot_be_measured_is_refused_in_a_line(server: Server, store: Path) -> None:
    classifier, pair = read_archive(store / "onnx-1.0.mar"), read_archive(store / "pair-1.0.mar")
    with pytest.raises(UsageError, match="was not started here.*--mar"):
        time_serving(server.url, "onnx")
    with pytest.raises(UsageError, match="pair is no classifier of grey images"):
        time_serving(server.url, "pair", archive=pair)
    with pytest.raises(ServingError, match="serves no model 'missing'"):
        time_serving(server.url, "missing", archive=classifier)
    done = CliRunner().invoke(app, ["bench", "serve", "--url", "http://127.0.0.1:9"])
    assert done.exit_code == 8 and "no server at http://127.0.0.1:9. Start it" in done.output
    for option in ("--connections", "--rate"):
        done = CliRunner().invoke(app, ["bench", "serve", option, "1,x"])
        assert done.exit_code == 2 and "no loads to measure with" in done.output
