"""Verify through the stack, without a server."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deploypipe
from deploypipe import served
from deploypipe.contract.run import Run
from deploypipe.errors import DeploypipeError, ExportError, PackageError, ServingError, UsageError
from deploypipe.verify import Subjects, verify_module, verify_run

NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("subjects", "error", "says"),
    [
        (Subjects(archive=Path("no.mar")), PackageError, "no archive at no.mar"),
        (Subjects(url=NOWHERE), UsageError, "which model of"),
        (Subjects(url=NOWHERE, name="m"), ServingError, f"no server at {NOWHERE}"),
    ],
    ids=["no archive", "no name", "no server"],
)
def test_what_cannot_be_asked(digits_run: Run, subjects: Subjects, error: type[DeploypipeError], says: str) -> None:
    with pytest.raises(error, match=says):
        verify_run(digits_run, subjects)
    assert not digits_run.parity.exists()


def test_what_the_model_of_a_torchserve_elsewhere_takes_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "endpoint_at", lambda asker, name: None)  # as for a server that answers /ping
    with pytest.raises(UsageError, match="was not started here"):
        verify_module(nn.Identity(), (torch.rand(2),), Subjects(url=NOWHERE, name="m"))


X = torch.linspace(-1, 1, 12).reshape(4, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Traced(Net):
    """What the capture refuses: it asks the network for its answer, by way of NumPy."""

    def forward(self, x: Tensor) -> Tensor:
        rows = [torch.from_numpy(row.numpy() * 2) for row in x]
        return self.layer(torch.stack(rows))


def written(module: nn.Module, folder: Path) -> Path:
    path = folder / "net.onnx"
    deploypipe.export(module.eval(), (X,), format="onnx", path=path, dynamic={"x": {0: "batch"}})
    return path


def strangers(module: nn.Module, folder: Path) -> Path:
    """A plain ONNX file, as somebody else's tool writes it."""
    path = folder / "plain.onnx"
    axes = ({0: torch.export.Dim("rows")},)
    torch.onnx.export(module.eval(), (X,), str(path), dynamo=True, dynamic_shapes=axes, external_data=False)
    return path


def test_a_strangers_file_is_verified_where_capture_refuses_the_module(tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        deploypipe.export(Traced(), (X,), format="onnx", path=tmp_path / "refused.onnx")

    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x * 2)

    path = strangers(Twice(), tmp_path)
    (report,) = verify_module(Traced(), (X,), Subjects((path,))).reports
    assert report.passed, report.reason
    assert {outcome.shapes for outcome in report.outcomes} >= {"1x3", "257x3"}
    (wrong,) = verify_module(Net(), (X,), Subjects((path,))).reports
    assert not wrong.passed


def test_nothing_is_captured_to_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(Net(), tmp_path)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("verify captures")

    monkeypatch.setattr(torch.export, "export", refuse)
    report = deploypipe.verify(Net(), path)
    assert report.passed, report.reason
    families = {outcome.family for outcome in report.outcomes}
    assert {"example", "drawn", "rows alone", "fresh process"} <= families


def test_probes_that_are_given_are_the_only_ones(tmp_path: Path) -> None:
    path = written(Net(), tmp_path)
    report = deploypipe.verify(Net(), path, [(X[:3],)])
    assert report.passed and {outcome.shapes for outcome in report.outcomes} == {"3x3"}
    (same,) = deploypipe.verify(Net(), Subjects((path,)), [(X[:3],)])
    assert same == report


def test_without_a_sidecar_there_must_be_something_to_compare_on(tmp_path: Path) -> None:
    path = strangers(Net(), tmp_path)
    with pytest.raises(UsageError, match="nothing to compare on"):
        deploypipe.verify(Net(), path)
    assert deploypipe.verify(Net(), path, example=(X,)).passed


class Random(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.rand(())


def test_a_module_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    path = strangers(Net(), tmp_path)
    with pytest.raises(UsageError, match="draws random numbers"):
        deploypipe.verify(Random(), path, example=(X,))


class Branch(nn.Module):
    """A branch that no drawn probe takes, and that a search finds."""

    def __init__(self, beyond: float = 2.0) -> None:
        super().__init__()
        self.beyond = beyond

    def forward(self, x: Tensor) -> Tensor:
        if x.min() > 40:
            return x * self.beyond
        return x + 1


def test_the_inputs_that_were_found_at_export_are_compared_on_again(tmp_path: Path) -> None:
    path = tmp_path / "branch.pt2"
    artifact = deploypipe.export(Branch().eval(), (X,), format="pt2", path=path)
    assert artifact.control_flow[0].unproven == () and len(artifact.found_inputs) == 1
    assert deploypipe.verify(Branch(), path).passed
    report = deploypipe.verify(Branch(beyond=3.0), path)
    assert {failure.family for failure in report.failures} == {"found for a branch"}


USERS = "print('mine')\n"


def test_what_deploypipe_did_not_write_is_left_alone(tmp_path: Path) -> None:
    path = written(Net(), tmp_path)
    users = [path.with_name(name) for name in ("reproduce.py", "net.onnx.reproduce.py", "net.onnx.parity.json")]
    for file in users:
        file.write_text(USERS)
    verified = verify_module(Net(), (X,), Subjects((path,)))
    assert verified.document.name == "net.onnx.parity-2.json" and verified.script is None
    wrong = Net()
    with torch.no_grad():
        wrong.layer.bias += 1
    verified = verify_module(wrong, (X,), Subjects((path,)))
    assert verified.document.name == "net.onnx.parity-2.json"
    assert verified.script is not None and verified.script.name == "net.onnx.reproduce-2.py"
    assert "Run me: python net.onnx.reproduce-2.py" in verified.script.read_text()
    assert all(file.read_text() == USERS for file in users)


def test_the_script_of_an_earlier_verification_is_removed(tmp_path: Path) -> None:
    path = written(Net(), tmp_path)
    wrong = Net()
    with torch.no_grad():
        wrong.layer.bias += 1
    script = verify_module(wrong, (X,), Subjects((path,))).script
    assert script == path.with_name("net.onnx.reproduce.py") and script.is_file()
    assert verify_module(Net(), (X,), Subjects((path,))).script is None
    assert not script.exists()


def test_a_runs_own_parity_json_is_not_overwritten(digits_run: Run, tmp_path: Path) -> None:
    run = replace(digits_run, folder=Path(shutil.copytree(digits_run.folder, tmp_path / "run")))
    run.parity.write_text(USERS)
    verified = verify_run(run, Subjects((run.artifacts()[0],)))
    assert verified.document == run.folder / "parity-2.json" and run.parity.read_text() == USERS
