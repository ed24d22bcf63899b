"""The comparison of servers runs, adds up and goes on; what it measures is for a quiet machine. The peers need
environments of their own: here they are only read."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from support import PROJECT

from deploypipe.contract.run import Run
from deploypipe.data import load_dataset
from deploypipe.models.trained import load_trained
from deploypipe.png import png

FOLDER = PROJECT / "benchmarks" / "serving"
PEERS = ("fastapi_onnx", "litserve_onnx", "bentoml_onnx", "torchserve_stock")


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    spec = importlib.util.spec_from_file_location("serving_comparison", FOLDER / "compare.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in {"comparison", "peers", "classifier"} - before:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_has_a_program_and_a_pinned_environment(name: str) -> None:
    script = FOLDER / name / "handler.py" if (FOLDER / name).is_dir() else FOLDER / f"{name}.py"
    compile(script.read_text(), str(script), "exec")
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    assert lines[0].startswith("#") and all(line.count("==") == 1 for line in lines[1:]) and len(lines) > 2
    assert not any(line.startswith("torch==") for line in lines)


def test_the_peers_answer_as_eager_does(compare: ModuleType, digits_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = importlib.import_module("classifier")
    monkeypatch.setenv(classifier.MODEL, str(digits_run.exports / "model.onnx"))
    images = load_dataset("digits").test.inputs[:5, 0]
    with torch.no_grad():
        odds = load_trained(digits_run)(images[:, None]).softmax(1).numpy()
    requests = [classifier.pixels_of(png(images[0])), images[1:].numpy()]
    one, several = classifier.Classifier().answers(requests)
    for found, wanted in zip([one, *several["predictions"]], odds, strict=True):
        assert found["class"] == wanted.argmax() and found["probability"] == max(found["probabilities"])
        np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-6)


@pytest.mark.nightly
def test_ours_and_onnxruntime_are_measured_and_gone_on_from(
    compare: ModuleType, digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    out = tmp_path / "found.json"

    def run(*servers: str) -> str:
        argv = ["compare.py", "--run", str(digits_run.folder), "--rounds", "1", "--seconds", "0.3", "--warmup", "0.2"]
        monkeypatch.setattr(sys, "argv", [*argv, "--out", str(out), "--servers", *servers])
        compare.main()
        return capsys.readouterr().out

    assert "| onnxruntime alone | a process a core | 1 |" in run(compare.ALONE)
    (before,) = json.loads(out.read_text())["results"]
    said = run(compare.ALONE, compare.OURS)
    assert "`deploypipe serve` | defaults | 1 |" in said and f"of {compare.ALONE} |" in said
    document = json.loads(out.read_text())
    assert document["schema"] == compare.SCHEMA and document["results"][0] == before
    loads = document["results"][1]["loads"]
    assert set(loads) == set(compare.LOADS)
    assert all(row["sent"] == row["answered"] > 0 and row["server"]["cores"] > 0 for row in loads.values())

    document["settings"]["cores"] = 1000
    out.write_text(json.dumps(document))
    with pytest.raises(SystemExit, match="measured with another cores"):
        run(compare.ALONE)


def row(server: str, rate: float, latency: float, images: float) -> dict[str, object]:
    served = {"server": {"cores": 1.0, "memory": 1}, "errors": {"503": 1}, "generator_cores": 0.1}
    loads = {
        "64 connections": {"requests_per_second": rate, "latency": {"p50": 9.0, "p99": 10.0}, **served},
        "1 connection": {"latency": {"p50": latency}, **served},
        "64 images a request": {"images_per_second": images, **served},
    }
    return {"server": server, "setting": "defaults", "round": 0, "loads": loads}


def test_medians_and_goals(compare: ModuleType) -> None:
    ours = compare._summary([row("deploypipe", rate, 2.0, 90.0) for rate in (100.0, 400.0, 300.0)])
    assert ours["requests_per_second"] == {"median": 300.0, "min": 100.0, "max": 400.0}
    assert ours["requests_per_cpu_second"]["median"] == 300.0
    assert ours["errors"] == {"503": 9} and ours["rounds"] == 3
    alone = {"server": compare.ALONE, "setting": "x", "loads": {"64 images a request": {"images_per_second": 100.0}}}
    # Each figure of FastAPI's is of the setting that is best at it.
    fastapi = [compare._summary([row("fastapi", *found)]) for found in ((100.0, 4.0, 50.0), (60.0, 1.0, 50.0))]
    goals = compare._goals([ours, *fastapi, compare._summary([alone])])
    assert [(goal["ratio"], goal["met"]) for goal in goals] == [(3.0, True), (2.0, False), (0.9, True)]
