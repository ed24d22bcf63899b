"""Parity through the stack: artifact, archive and endpoint held to the same eager module, in one report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from served_models import Models
from typer.testing import CliRunner

import deploypipe
from deploypipe import cli
from deploypipe.contract.server import Server
from deploypipe.usercode import load_module

USER = """
from torch import nn

class Pair(nn.Module):
    def forward(self, x, scale):
        return x * scale, x.sum(dim=1)

class Another(nn.Module):
    def forward(self, x, scale):
        return x * scale * 1.01, x.sum(dim=1)

def example():
    import torch
    return torch.randn(2, 3), torch.randn(3)
"""
Verify = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def verify(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Verify:
    """`deploypipe verify` of the user's module, also against what is served as "pair": exit code and document."""
    (tmp_path / "user.py").write_text(USER)
    monkeypatch.chdir(tmp_path)

    def run(name: str, *options: str | Path) -> tuple[int, dict[str, Any]]:
        model = ["--model", f"user.py:{name}", "--example", "user.py:example"]
        argv = ["verify", *model, "--url", server.url, "--name", "pair", "--json", *map(str, options)]
        done = CliRunner().invoke(cli.app, argv)
        return done.exit_code, json.loads(done.stdout)

    return run


def test_artifact_archive_and_endpoint_are_one_chain(
    verify: Verify, models: Models, store: Path, server: Server, tmp_path: Path
) -> None:
    code, document = verify("Pair", "--artifact", models.artifacts["pair"], "--mar", store / "pair-1.0.mar")
    assert code == 0, document
    reports = json.loads(Path(document["report"]).read_text())["artifacts"]
    assert [report["verdict"] for report in reports] == ["passed"] * 3
    assert [report["provider"] for report in reports] == ["cpu", "archive handler", server.url]
    through = [{(outcome["family"], outcome["shapes"]) for outcome in report["outcomes"]} for report in reports]
    assert through[1] == through[2] < through[0] and len(through[1]) > 5


def test_an_endpoint_that_serves_another_model_fails(verify: Verify, server: Server, tmp_path: Path) -> None:
    path, axes = tmp_path / "another.pt2", {"x": {0: "batch"}}
    example = (torch.randn(2, 3), torch.randn(3))
    module = load_module("user.py:Another").eval()
    deploypipe.export(module, example, format="pt2", path=path, dynamic=axes, output_names=("scaled", "total"))
    code, document = verify("Another", "--artifact", path)
    assert code == 6
    assert document["error"].startswith(f"pair at {server.url} differs")
    assert "'scaled'" in document["error"] and "'total'" not in document["error"]
