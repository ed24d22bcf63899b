"""The comparison with published trainings runs, adds up and goes on; what it measures is for a quiet machine."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support import PROJECT

from deploypipe.data import load_dataset

SCRIPT = PROJECT / "benchmarks" / "training" / "compare.py"


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
    spec = importlib.util.spec_from_file_location("training_comparison", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.nightly
def test_a_trial_runs_and_goes_on_from_what_it_has(
    compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"

    def run(*baselines: str) -> str:
        argv = ["compare.py", "--data", "digits", "--trial", "--seeds", "1", "--out", str(out), "--baselines"]
        monkeypatch.setattr(sys, "argv", [*argv, *baselines])
        compare.main()
        return capsys.readouterr().out

    assert "`deploypipe train` | 1 |" in run()
    (before,) = json.loads(out.read_text())["results"]
    said = run("mlp")
    assert "`deploypipe train` | 1 |" in said and "mlp, Adam 0.001, batch 64 | 1 |" in said
    document = json.loads(out.read_text())
    assert document["results"][0] == before and document["results"][1]["program"] == "mlp"
    assert all(0 < row["seconds"] < row["process_seconds"] for row in document["results"])

    document["settings"]["cores"] = 1000
    out.write_text(json.dumps(document))
    with pytest.raises(SystemExit, match="measured with another cores"):
        run("mlp")


@pytest.mark.parametrize("name", ["pytorch_examples", "simple_cnn", "cnn", "mlp"])
def test_a_baseline_trains_and_tells_both_clocks(compare: ModuleType, name: str) -> None:
    recipe = importlib.import_module(name).RECIPE
    assert recipe.name in compare.BASELINES and compare.BASELINES[recipe.name][0] == f"{name}.py"
    found = importlib.import_module("loop").measure(recipe, load_dataset("digits"), seed=0, epochs=2, limit=128)
    first, second = found["epochs"]
    assert 0 < first["seconds"] < first["seconds_with_evaluation"] < second["seconds_with_evaluation"]
    assert second["seconds"] == found["seconds"] < found["seconds_with_evaluation"]
    assert 0 < found["accuracy"] < 0.99 and not found["reached"]


def row(program: str, seconds: float, accuracy: float) -> dict[str, object]:
    return {"program": program, "seed": 0, "seconds": seconds, "seconds_with_evaluation": seconds + 1,
            "process_seconds": seconds + 5, "accuracy": accuracy, "reached": accuracy >= 0.99,
            "images_per_second": 1.0}  # fmt: skip


def test_medians_and_ratios(compare: ModuleType) -> None:
    ours = [row("deploypipe train", 5.0, 0.99), row("deploypipe train", 7.0, 0.992), row("deploypipe train", 1.0, 0.98)]
    summary = {
        "deploypipe train": compare._summary(ours),
        "pytorch-examples": compare._summary([row("pytorch-examples", 240.0, 0.991)]),
        "mlp": compare._summary([row("mlp", 60.0, 0.978)]),
    }
    # A training that missed the target has no time to it, however fast it was.
    assert summary["deploypipe train"]["seconds_to_target"] == {"median": 6.0, "min": 5.0, "max": 7.0}
    assert summary["deploypipe train"]["reached"] == 2
    ratios = compare._ratios(summary)
    assert ratios["pytorch-examples"] == {"reached": True, "training": 40.0, "process": pytest.approx(245 / 11)}
    assert ratios["mlp"]["training"] == 10.0 and not ratios["mlp"]["reached"]
