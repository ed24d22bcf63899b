"""The whole way, as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support import Command, clean_environment


@pytest.mark.nightly  # README's first command does the same where the digits are named
def test_without_a_dataset_run_says_digits_and_finishes(deploypipe: Command, tmp_path: Path) -> None:
    """An empty data folder, and a proxy that nobody listens at: neither disk nor network has MNIST."""
    nowhere = "http://127.0.0.1:9"
    done = deploypipe("run", "--model", "simple-cnn", "--epochs", "3", "--json",
                      http_proxy=nowhere, https_proxy=nowhere, HTTPS_PROXY=nowhere)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "could not be downloaded" in done.stderr and "using the embedded digits dataset" in done.stderr
    summary = json.loads(done.stdout)
    assert summary["dataset"]["name"] == "digits" and summary["metrics"]["accuracy"] > 0.8
    assert [artifact["verdict"] for artifact in summary["artifacts"]] == ["passed"] * 3
    assert summary["http"]["agreeing"] == summary["http"]["requests"] == 100
    assert summary["http"]["max_difference"] < 1e-4
    assert (tmp_path / summary["archive"]["path"]).is_file()
    assert servers(tmp_path) == []


def test_mnist_reaches_99_percent_and_serves_what_it_trained(
    deploypipe: Command, mnist_dir: Path, tmp_path: Path
) -> None:
    done = deploypipe("run", "--data", "mnist", "--data-dir", mnist_dir, "--json", timeout=1500)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["dataset"]["name"] == "mnist" and summary["dataset"]["test"] == 10000
    assert summary["metrics"]["accuracy"] >= 0.99
    assert [artifact["verdict"] for artifact in summary["artifacts"]] == ["passed"] * 3
    assert summary["http"]["agreeing"] == summary["http"]["requests"] == 100
    assert summary["http"]["max_difference"] < 1e-4


@pytest.mark.parametrize(
    "moment", ["2/6 export", *(pytest.param(late, marks=pytest.mark.nightly) for late in ("5/6 serve", "6/6 predict"))]
)
def test_ctrl_c_at_any_step_leaves_no_process_and_no_half_written_file(tmp_path: Path, moment: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "deploypipe", "run", "--model", "simple-cnn", "--data", "digits", "--epochs", "1",
         "--format", "onnx"],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(moment):
            break
    os.kill(process.pid, signal.SIGINT)
    said = process.stderr.read()
    assert process.wait(timeout=60) == 130, said
    assert "error: interrupted" in said and "Traceback" not in said
    assert servers(tmp_path) == []
    hidden = [path for folder in ("runs", "model_store") for path in (tmp_path / folder).rglob(".*")]
    # The lock is empty, and the kernel lets go of it with the process.
    assert {path.name for path in hidden} <= {".lock", ".deploypipe"}, "temporary files"


def servers(home: Path) -> list[int]:
    """TorchServe processes, front ends and workers, of this test: other tests run beside it with homes of their own."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environment = process.info["environ"] or {}
        if "org.pytorch.serve" in " ".join(process.info["cmdline"] or ()) and environment.get("HOME") == str(home):
            found.append(process.pid)
    return found
