"""The zoo's dynamic networks, all the way through the command line: train, export, verify, package, serve, predict."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import Command, clean_environment
from typer.testing import CliRunner

from deploypipe.cli import app
from deploypipe.contract.run import open_run
from deploypipe.models.trained import load_trained
from deploypipe.serve.network import free_ports

REQUESTS = {
    "dynamic-branch": {"x": [-1.0] * 10},
    "dynamic-depth": {"x": [[0.5] * 10], "depth": 2},
    "sentence": {"tokens": [7, 60, 80]},
}
FOLDERS = {name: f"runs/{name}" for name in REQUESTS} | {"sentence": "runs/sentence-sentences"}


@pytest.fixture
def deploypipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in this process: it does the same, and importing torch for each of twenty would take longer."""
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - set(clean_environment(tmp_path)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*argv: str | Path, check: bool = False) -> "subprocess.CompletedProcess[str]":
        done = CliRunner().invoke(app, [*map(str, argv)])
        assert not check or done.exit_code == 0, done.stderr
        return subprocess.CompletedProcess(argv, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def port(deploypipe: Command) -> Iterator[int]:
    (chosen,) = free_ports(1)
    yield chosen
    deploypipe("stop", "--port", str(chosen))


def test_from_training_to_predictions(deploypipe: Command, tmp_path: Path, port: int) -> None:
    for name in REQUESTS:
        deploypipe("train", "--model", name, *(["--epochs", "1"] if name == "sentence" else []), check=True)
        exported = deploypipe("export", "--format", "all", "--require-coverage", "--json", check=True)
        artifacts = json.loads(exported.stdout)["artifacts"]
        assert [artifact["parity"]["verdict"] for artifact in artifacts] == ["passed"] * 3
        assert all(site["became"] in ("cond", "while_loop") for site in artifacts[0]["control_flow"])
        deploypipe("verify", check=True)
        deploypipe("package", check=True)
    deploypipe("serve", "--detach", "--port", str(port), check=True)
    for name, inputs in REQUESTS.items():
        (tmp_path / "request.json").write_text(json.dumps({"instances": [inputs]}))
        url = f"http://127.0.0.1:{port}"
        said = deploypipe("predict", "request.json", "--name", name, "--url", url, "--json", check=True)
        ((answer,),) = (item["predictions"] for item in json.loads(said.stdout)["predictions"])
        module = load_trained(open_run(tmp_path / FOLDERS[name]))
        example = [torch.tensor(value) for value in inputs.values()]
        if name != "dynamic-depth":  # an instance is a row
            example = [value.unsqueeze(0) for value in example]
        with torch.no_grad():
            wanted = module(*example)
        (found,) = answer.values()
        torch.testing.assert_close(torch.tensor(found), wanted.reshape(torch.tensor(found).shape), atol=1e-4, rtol=1e-4)


def test_explain_shows_each_site_and_the_rewritten_source(deploypipe: Command) -> None:
    deploypipe("train", "--model", "dynamic-depth", check=True)
    shown = deploypipe("export", "--explain", check=True).stdout
    assert "dynamic.py:" in shown and "while_loop" in shown and "0, 1, many" in shown
    assert "-    for _ in range(int(depth)):" in shown
