"""Models on servers that others wrote, compared with eager over HTTP."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stub_server import Arrays, Stub, serving_stub
from torch import Tensor, nn

import deploypipe
from deploypipe.contract.run import Run
from deploypipe.endpoints.asking import parse_header
from deploypipe.errors import DeploypipeError, ServingError, UsageError
from deploypipe.models.trained import load_trained
from deploypipe.parity.verdict import Report
from deploypipe.verify import Subjects, verify_run

X = torch.linspace(-1, 1, 6).reshape(2, 3)


class Net(nn.Module):
    """Two inputs, and a dict of two outputs that is not in the order of its keys."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.shift = shift

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"scores": self.layer(x) + self.shift, "both": (x + y).log()}


def served_by(module: nn.Module, *inputs: str, outputs: tuple[str, ...] = ("scores", "both")) -> Any:
    """What the stub answers with: the module itself, its tensors called as the server calls them."""

    def answer(arrays: Arrays) -> Arrays:
        with torch.no_grad():
            found = module(*(torch.from_numpy(arrays[name].copy()) for name in inputs))
        found = found.values() if isinstance(found, dict) else [found]
        return {name: tensor.numpy() for name, tensor in zip(outputs, found, strict=True)}

    return answer


def tensors(*names: str) -> list[tuple[str, str, list[int]]]:
    return [(name, "float32", [-1, 3]) for name in names]


OUTPUTS = [("scores", "float32", [-1, 2]), ("both", "float32", [-1, 3])]
NET = Stub(served_by(Net(), "x", "y"), tensors("x", "y"), OUTPUTS)


def verified(stub: Stub, module: nn.Module | None = None, example: Any = (X, X + 2), **options: Any) -> Report:
    with serving_stub(stub) as url:
        subjects = Subjects(url=url, name="net", **options)
        (report,) = deploypipe.verify(module or Net(), subjects, example=example)
        return report


def said(report: Report) -> dict[str, str]:
    return {finding.check: finding.detail for finding in report.findings}


PROTOCOLS = {
    "v2": "Open Inference Protocol v2, tensors as JSON",
    "v2 bytes": "Open Inference Protocol v2, tensors as bytes",
    "v1": "TensorFlow Serving's REST, instances",
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_model_passes_and_another_one_fails(protocol: str) -> None:
    report = verified(replace(NET, protocol=protocol))
    assert report.passed, report.reason
    assert said(report)["protocol"] == PROTOCOLS[protocol] and "names" not in said(report)
    assert {outcome.output for outcome in report.outcomes} == {"scores", "both"}
    assert {"1x3 1x3", "257x3 257x3"} <= {outcome.shapes for outcome in report.outcomes}
    other = verified(replace(NET, protocol=protocol, answer=served_by(Net(shift=1e-3), "x", "y")))
    assert {failure.output for failure in other.failures} == {"scores"}


@pytest.mark.parametrize("protocol", ["v2", "v2 bytes"])
def test_other_names_are_taken_by_place_and_said(protocol: str) -> None:
    answer = served_by(Net(), "INPUT__0", "INPUT__1", outputs=("OUTPUT__0", "OUTPUT__1"))
    declared = [("OUTPUT__0", "float32", [-1, 2]), ("OUTPUT__1", "float32", [-1, 3])]
    stub = Stub(answer, tensors("INPUT__0", "INPUT__1"), declared, protocol)
    report = verified(stub)
    assert report.passed, report.reason
    assert said(report)["names"] == "x is its INPUT__0, y is its INPUT__1"


def test_inputs_of_the_same_names_are_matched_by_name() -> None:
    report = verified(replace(NET, inputs=tensors("y", "x")))
    assert report.passed, report.reason


class Single(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_declares_nothing_takes_what_the_example_is(protocol: str) -> None:
    report = verified(Stub(served_by(Single(), "x", outputs=("y",)), protocol=protocol), Single(), (X,))
    assert report.passed, report.reason
    sizes = {outcome.shapes for outcome in report.outcomes}
    assert sizes == {"2x3"} if protocol != "v1" else {"1x3", "2x3", "257x3"} <= sizes


@pytest.mark.parametrize("protocol", ["v2", "v2 bytes"])
def test_no_batch_is_larger_than_the_server_takes(protocol: str) -> None:
    report = verified(replace(NET, protocol=protocol, largest_batch=8))
    assert report.passed, report.reason
    assert max(int(outcome.shapes.partition("x")[0]) for outcome in report.outcomes) in range(3, 9)


@pytest.mark.parametrize(("protocol", "sent"), [("v2", False), ("v2 bytes", True), ("v1", False)])
def test_what_json_cannot_carry_is_counted_and_not_sent(protocol: str, sent: bool) -> None:
    probes = [(X, X), (X.log(), X)]
    with serving_stub(replace(NET, protocol=protocol)) as url:
        (report,) = deploypipe.verify(Net(), Subjects(url=url, name="net"), probes)
    assert report.passed, report.reason
    unsent = said(report).get("probes not sent", "")
    assert unsent == ("" if sent else "1 of 2; of the first, JSON has no NaN and no infinity")


def test_a_header_goes_with_every_request() -> None:
    stub = replace(NET, token="secret")
    assert verified(stub, headers={"Authorization": "Bearer secret"}).passed
    with pytest.raises(
        ServingError, match=r"refuses us \(HTTP 401\): no valid token. Give what it wants with --header"
    ):
        verified(stub)


@pytest.mark.parametrize(
    ("change", "example", "error", "says"),
    [
        ({"inputs": [("x", "float64", [-1, 3]), *tensors("y")]}, (X, X), UsageError, "takes x: float64.*another dtype"),
        ({"inputs": [("x", "float32", [-1, 3, 4]), *tensors("y")]}, (X, X), UsageError, "2 axes instead of 3"),
        ({"inputs": [("x", "float32", [-1, 4]), *tensors("y")]}, (X, X), UsageError, "axis 1 has 3 instead of 4"),
        ({"inputs": tensors("x")}, (X, X), UsageError, "takes 1 inputs .* the example gives 2"),
        ({"ready": False}, (X, X), ServingError, r"'net' at .* is not ready \(HTTP 503\)"),
        ({"ready": False, "protocol": "v1"}, (X, X), ServingError, "is not ready: LOADING"),
        ({"protocol": "gopher"}, (X, X), ServingError, "has no model 'net' by a protocol that is known here"),
    ],
    ids=["dtype", "axes", "size", "inputs", "not ready", "not ready, v1", "unknown protocol"],
)
def test_what_does_not_fit_is_one_clear_line(change: Any, example: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        verified(replace(NET, **change), example=example)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "name", "error", "says"),
    [
        (lambda url: url, "other", ServingError, "serves no model 'other'; it serves net"),
        (lambda url: url.removeprefix("http://"), "net", UsageError, "Write it with http:// or https://"),
        (lambda url: "http://127.0.0.1:1", "net", ServingError, "no server at http://127.0.0.1:1"),
        (lambda url: url, None, UsageError, "which model of"),
    ],
    ids=["no such model", "no scheme", "nobody there", "no name"],
)
def test_a_wrong_address_is_one_clear_line(
    url: Callable[[str], str], name: str | None, error: type[DeploypipeError], says: str
) -> None:
    with serving_stub(NET) as address, pytest.raises(error, match=says) as caught:
        deploypipe.verify(Net(), Subjects(url=url(address), name=name), example=(X, X))
    assert "\n" not in str(caught.value)


def test_a_refused_request_is_a_difference_with_the_servers_reason() -> None:
    def refuse(arrays: Arrays) -> Arrays:
        return {"scores": np.zeros((0,), np.float32)}

    report = verified(replace(NET, answer=refuse))
    assert not report.passed and "the answer has 1 outputs (scores), the module 2" in report.reason


def test_a_header_is_a_name_and_a_value() -> None:
    assert parse_header("Authorization: Bearer a:b") == ("Authorization", "Bearer a:b")


@pytest.mark.parametrize("text", ["Bearer secret", ": secret", "no name: secret"])
def test_what_is_no_header_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(UsageError, match="--header is no header") as caught:
        parse_header(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["v2", "v2 bytes"])
def test_the_model_of_a_run_wherever_it_is_served(protocol: str, digits_run: Run, tmp_path: Path) -> None:
    """On real images, without an artifact: the server alone is asked."""
    run = replace(digits_run, folder=Path(shutil.copytree(digits_run.folder, tmp_path / "run")))
    shutil.rmtree(run.exports)
    answer = served_by(load_trained(run).eval(), "pixels", outputs=("logits",))
    declared = [("pixels", "uint8", [-1, 1, 28, 28])], [("logits", "float32", [-1, 10])]
    with serving_stub(Stub(answer, *declared, protocol=protocol, largest_batch=64)) as url:
        (report,) = verify_run(run, Subjects(url=url, name="net")).reports
    assert report.passed, report.reason
    assert {"test images", "all test images", "all 255"} <= {outcome.family for outcome in report.outcomes}
    assert "its batch is 257, the server takes 64" in said(report)["probes not sent"]
