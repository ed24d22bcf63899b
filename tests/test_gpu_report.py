"""`make gpu`: every check has a row, what is missing is said in it, and a check that fails is the exit code.

No GPU is needed: `--device cpu --quick` sends the same code through less work.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import PROJECT, clean_environment

PACKAGE = PROJECT / "benchmarks" / "gpu"
BESIDE_TORCH = (
    "PIL", "httpx", "matplotlib", "msgspec", "onnx", "onnxruntime", "onnxscript", "orjson", "platformdirs",
    "prometheus_client", "psutil", "rich", "safetensors", "sklearn", "tensorboard", "torchvision", "ts", "typer",
)  # fmt: skip
"""What a machine that has torch and numpy alone does not have."""


def run(tmp_path: Path, *options: str, hidden: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
    """The exit code and what it printed, where the `hidden` packages cannot be imported, in child processes either."""
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({hidden!r}))\n")
    done = subprocess.run(
        [sys.executable, str(PACKAGE), *options],
        cwd=tmp_path,
        env=clean_environment(tmp_path) | {"PYTHONPATH": str(hiding)} | environment,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def rows(printed: str) -> dict[str, tuple[str, str]]:
    """By check: outcome and what was found."""
    document: dict[str, Any] = json.loads(printed)
    return {row["check"]: (row["outcome"], row["found"]) for row in document["rows"]}


def test_without_a_gpu_each_row_says_so_in_80_columns(tmp_path: Path) -> None:
    code, printed = run(tmp_path, CUDA_VISIBLE_DEVICES="")
    lines = printed.splitlines()
    assert code == 0 and max(map(len, lines)) <= 80
    assert sum("not run" in line and "no CUDA device" in line for line in lines) == 9
    assert lines[-1] == "9 not run"


@pytest.mark.nightly
def test_a_machine_with_torch_and_numpy_alone_runs_the_trainings(tmp_path: Path) -> None:
    checks = ["repeatable", "processes", "onnx", "serving"]
    code, printed = run(tmp_path, "--quick", "--device", "cpu", "--json", "--only", *checks, hidden=BESIDE_TORCH)
    found = rows(printed)
    assert code == 0 and len(found) == len(checks)
    assert found["same seed, same bits"][0] == "partly" and "bit for bit" in found["same seed, same bits"][1]
    assert found["two processes (NCCL)"][0] == "partly" and "gloo" in found["two processes (NCCL)"][1]
    for check in ("ONNX on device", "serve --device"):
        outcome, what = found[check]
        assert outcome == "not run" and what.startswith("missing packages: ") and "onnxruntime" in what


def test_without_mnist_the_digits_are_trained_on_or_the_row_says_what_is_missing(tmp_path: Path) -> None:
    if (PROJECT.parent / "shared" / "mnist").is_dir():
        pytest.skip("MNIST lies beside this checkout")
    options = ["--quick", "--device", "cpu", "--json", "--only", "time-99"]
    ((outcome, what),) = rows(run(tmp_path, *options)[1]).values()
    assert outcome == "partly" and "MNIST is missing" in what and "of the test images after" in what
    other = tmp_path / "other"
    other.mkdir()
    ((outcome, what),) = rows(run(other, *options, hidden=("sklearn",))[1]).values()
    assert outcome == "not run" and "MNIST is missing" in what and "scikit-learn" in what


@pytest.mark.nightly
def test_an_artifact_is_held_against_eager(tmp_path: Path) -> None:
    code, printed = run(tmp_path, "--quick", "--device", "cpu", "--json", "--only", "onnx")
    ((outcome, what),) = rows(printed).values()
    assert code == 0 and outcome == "partly"
    assert what == "CPUExecutionProvider: equal to eager: lean-cnn"


@pytest.mark.nightly
def test_a_check_that_fails_says_how_and_is_the_exit_code(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        (raw / f"{name}-idx{3 if 'images' in name else 1}-ubyte").write_bytes(b"damaged")
    options = ["--quick", "--device", "cpu", "--json", "--only", "time-99"]
    code, printed = run(tmp_path, *options, DEPLOYPIPE_DATA_DIR=str(tmp_path / "data"))
    ((outcome, what),) = rows(printed).values()
    assert code == 1 and outcome == "failed" and "DataError" in what and "ubyte" in what


@pytest.mark.nightly
def test_a_check_whose_process_dies_has_a_row(tmp_path: Path) -> None:
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(
        "import os, sys\nif '--in-process' in getattr(sys, 'orig_argv', []):\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, str(PACKAGE), "--quick", "--device", "cpu", "--json", "--only", "repeatable"],
        env=clean_environment(tmp_path) | {"PYTHONPATH": os.pathsep.join([str(hiding), str(PROJECT)])},
        capture_output=True,
        text=True,
    )
    ((outcome, what),) = rows(done.stdout).values()
    assert done.returncode == 1 and outcome == "failed" and "ended with -9" in what
