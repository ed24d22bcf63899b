"""NaN and infinities: a difference is stated, never silent, and never a failure."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fake_artifact import Fake
from torch import Tensor, nn

import deploypipe
from deploypipe.contract.signature import TensorSpec
from deploypipe.formats import FORMATS
from deploypipe.parity.non_finite import try_non_finite
from deploypipe.parity.probes import Probe, non_finite_probes
from deploypipe.parity.reference import Reference
from deploypipe.parity.standards import EQUAL_TO_EAGER
from deploypipe.parity.verdict import Culprit

SPECS = (TensorSpec("x", "float32", ("batch", 4)), TensorSpec("n", "int64", (2,)), TensorSpec("y", "float32", (3,)))
EXAMPLE = (torch.ones(2, 4), torch.ones(2, dtype=torch.int64), torch.ones(3))


def test_each_float_input_is_given_each_value_in_single_places() -> None:
    probes = non_finite_probes(SPECS, EXAMPLE)
    assert [probe.family for probe in probes] == ["NaN", "infinity", "-infinity"] * 2
    for place, probe in zip([0, 0, 0, 2, 2, 2], probes, strict=True):
        odd = [~tensor.isfinite() for tensor in probe.inputs]
        assert [bool(mask.any()) for mask in odd] == [place == 0, False, place == 2]
        assert odd[0].sum(1).tolist() == ([1, 1, 0] if place == 0 else [0, 0, 0]), "the last row stays as it is"
        value = {"NaN": math.nan, "infinity": math.inf, "-infinity": -math.inf}[probe.family]
        torch.testing.assert_close(probe.inputs[place][odd[place]], torch.full((int(odd[place].sum()),), value),
                                   equal_nan=True)  # fmt: skip


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax(-1)


class Overflows(nn.Module):
    """What comes of an infinity here depends on the precision."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.isfinite(), x, 3e38) * 2


def no_culprit(inputs: tuple[Tensor, ...]) -> None:
    return None


def amax(inputs: tuple[Tensor, ...]) -> Culprit:
    return Culprit("node", "ReduceMax", "", "", "aten.amax.default", 1.0)


@pytest.mark.parametrize(
    ("module", "artifact", "locate", "stated"),
    [
        (Largest(), lambda x: x.amax(-1), no_culprit, "as eager"),
        (Largest(), lambda x: x.nan_to_num(nan=-9, posinf=math.inf, neginf=-math.inf).amax(-1), amax, "differs: amax"),
        (Largest(), lambda x: x.nan_to_num(nan=-9).amax(-1), no_culprit, "differs: output"),
        (Largest(), lambda x: 1 / 0, no_culprit, "differs: output"),
        (Largest(), lambda x: x[:1].amax(-1), no_culprit, "differs: output"),
        (Overflows(), lambda x: torch.where(x.isfinite(), x * 2, math.nan), no_culprit, "as eager"),
    ],
    ids=["equal", "located", "not located", "an error", "a shape", "an overflow of eager's"],
)
def test_what_differs_is_named(
    module: nn.Module,
    artifact: Callable[[Tensor], Tensor],
    locate: Callable[[tuple[Tensor, ...]], Culprit | None],
    stated: str,
) -> None:
    probes = non_finite_probes(SPECS[:1], EXAMPLE[:1])
    found = try_non_finite(Reference(module), Fake(artifact), probes, EQUAL_TO_EAGER, locate)
    assert found.stated == stated and found.finding().passed


class Clamped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu().amax(-1)


X = torch.linspace(-1, 1, 12).reshape(3, 4)


@pytest.mark.parametrize("format", FORMATS)
def test_a_sidecar_says_that_it_is_as_eager(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{FORMATS[format].suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        deploypipe.export(Clamped().eval(), (X,), format=format, path=path, dynamic={"x": {0: "batch"}})
        assert deploypipe.verify(Clamped().eval(), path).non_finite == "as eager"
    assert json.loads(path.with_name(f"{path.name}.json").read_text())["parity"]["non_finite"] == "as eager"


def test_a_plain_file_that_differs_is_warned_of_and_passes(tmp_path: Path) -> None:
    """ONNX Runtime's ReduceMax answers a number for NaN; torch's own exporter writes it as it is."""
    path = tmp_path / "plain.onnx"
    torch.onnx.export(Largest().eval(), (X,), str(path), dynamo=True, external_data=False)
    with pytest.warns(UserWarning, match=r"on NaN and infinities it differs from eager \(amax\)"):
        report = deploypipe.verify(Largest().eval(), path, example=(X,))
    assert report.passed and report.summary()["non_finite"] == "differs: amax"
    assert "3 with NaN or infinities: differs: amax" in [f.detail for f in report.findings if f.check.startswith("non")]


class Halves(nn.Module):
    """Never ends on an infinity."""

    def forward(self, x: Tensor) -> Tensor:
        while x.abs().max() > 1:
            x = x / 2
        return x


def test_what_eager_does_not_end_on_is_soon_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploypipe.parity.reference.SHORT_PATIENCE", 0.1)
    reference = Reference(Halves())
    endless = Probe("infinity", (torch.full((2,), math.inf),), optional=True, non_finite=True)
    with pytest.raises(deploypipe.DeploypipeError, match=r"no end after 0\.1 s"):
        reference.answer(endless)
