import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_artifact import INPUT, Fake, Scale, report_of
from torch import Tensor, nn

import deploypipe
from deploypipe.contract.run import Run
from deploypipe.contract.signature import Signature, TensorSpec
from deploypipe.errors import ParityError, UsageError
from deploypipe.models.trained import load_trained
from deploypipe.parity.gate import Gate
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import Reference
from deploypipe.parity.tolerances import Overrides


def test_equal_is_passed() -> None:
    report = report_of(lambda x: x * 2)
    assert report.passed and report.verdict == "passed" and report.max_difference == 0
    report.raise_if_failed()


def with_value(value: float) -> Callable[[Tensor], Tensor]:
    def changed(x: Tensor) -> Tensor:
        result = x * 2
        result[1, 0] = value
        return result

    return changed


def fails(x: Tensor) -> Tensor:
    raise RuntimeError("no kernel\nsecond line")


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (with_value(6.1), r"1 of 4 values differ, worst at \[1, 0\]: artifact 6.09\d+, eager 6.0 "),
        (with_value(math.nan), "artifact nan, eager 6.0"),
        (with_value(math.inf), "artifact inf, eager 6.0"),
        (lambda x: (x * 2).double(), "dtype float64, eager float32"),
        (lambda x: (x * 2)[:1], r"shape \[1, 2\], eager \[2, 2\]"),
        (lambda x: (x * 2, x), "returns a tuple of 2, eager a tensor"),
        (fails, "the artifact fails: no kernel$"),
    ],
    ids=["value", "NaN", "infinity", "dtype", "shape", "one output more", "error"],
)
def test_every_kind_of_difference_fails_and_is_named(function: Callable[..., Any], problem: str) -> None:
    report = report_of(function)
    assert not report.passed and len(report.failures) == 1
    with pytest.raises(ParityError, match="artifact differs from the eager model: 1 of 1 comparisons"):
        report.raise_if_failed()
    import re

    assert re.search(problem, report.failures[0].problem)


class Holes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([math.nan, math.inf, -math.inf, 1.0])


@pytest.mark.parametrize(
    ("values", "passed"),
    [
        ([math.nan, math.inf, -math.inf, 1.0], True),
        ([0.0, math.inf, -math.inf, 1.0], False),
        ([math.nan, -math.inf, -math.inf, 1.0], False),
        ([math.nan, math.inf, -math.inf, math.nan], False),
    ],
    ids=["same places", "NaN gone", "other sign", "NaN added"],
)
def test_nan_and_infinity_must_stand_in_the_same_places(values: list[float], passed: bool) -> None:
    assert report_of(lambda x: torch.tensor(values), Holes()).passed is passed


def test_the_tolerance_is_absolute_plus_relative() -> None:
    allowed = 1e-5 + 1.3e-6 * 6
    alone = Probe("given", (INPUT,), in_float64=False)
    assert report_of(with_value(6 + 0.8 * allowed), probe=alone).passed
    assert not report_of(with_value(6 + 1.3 * allowed), probe=alone).passed
    # Another runtime sums in another order, and may.
    assert report_of(with_value(6 + 1.3 * allowed), probe=alone, runtime="onnxruntime").passed
    assert not report_of(with_value(6.01), runtime="onnxruntime").passed


def test_extreme_inputs_get_a_tolerance_of_their_magnitude() -> None:
    probes = [Probe("found", (INPUT * 1e-3,), magnitude, in_float64=False) for magnitude in (1, 1e3)]
    assert [report_of(lambda x: x * 2 + 1e-3, probe=probe).passed for probe in probes] == [False, True]


class Counts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([2**60])


def test_integers_must_be_equal_even_beyond_float64() -> None:
    assert report_of(lambda x: torch.tensor([2**60]), Counts()).passed
    assert not report_of(lambda x: torch.tensor([2**60 + 1]), Counts()).passed


def test_a_forward_that_works_in_place_does_not_hide_a_difference() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    assert not report_of(lambda x: x, InPlace()).passed
    assert INPUT[0, 0] == 1


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": x, "b": x + 1}


@pytest.mark.parametrize(
    "function",
    [lambda x: {"b": x, "a": x + 1}, lambda x: {"a": x, "c": x + 1}, lambda x: (x, x + 1)],
    ids=["names swapped", "another name", "a tuple"],
)
def test_names_and_nesting_must_be_the_same(function: Callable[..., Any]) -> None:
    """Though the tensors, in order, are eager's."""
    signature = Signature((), (TensorSpec("a", "float32", ()), TensorSpec("b", "float32", ())), None)
    report = report_of(function, Named(), signature=signature)
    assert not report.passed
    assert report_of(lambda x: {"b": x + 1, "a": x}, Named(), signature=signature).passed


def test_no_probe_is_no_proof() -> None:
    report = Gate(Reference(Scale()), ()).examine_runner(Fake(lambda x: x * 2), "artifact")
    assert not report.passed
    with pytest.raises(ParityError, match="compared on no probe"):
        report.raise_if_failed()


def test_a_probe_that_eager_does_not_take_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match=r"probe wrong \[2\]: the eager model fails on inputs float32\[2\]"):
        report_of(lambda x: x, nn.Linear(3, 1), probe=Probe("wrong", (torch.zeros(2),)))


def test_verify_finds_an_artifact_of_other_weights(digits_run: Run, tmp_path: Path) -> None:
    module = load_trained(digits_run)
    artifact = digits_run.exports / "model.onnx"
    probes = [(torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8),)]
    assert deploypipe.verify(module, artifact, probes).passed
    with torch.no_grad():
        next(module.parameters()).mul_(1.01)
    report = deploypipe.verify(module, artifact, probes)
    assert not report.passed and report.failures[0].output == "logits"
    loose = Overrides(atol={"logits": 10.0})
    # However much the values may differ, the weights are not these.
    report = deploypipe.verify(module, artifact, probes, overrides=loose)
    assert not report.failures and [finding.check for finding in report.broken] == ["weights"]
