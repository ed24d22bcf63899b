"""What the saved graph must hold and must not: each thing done wrong to a file is named, and nothing right is."""

import copy
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from deploypipe.capture import Capture, capture
from deploypipe.contract.signature import Signature, TensorSpec
from deploypipe.formats import FORMATS
from deploypipe.formats.format import Format
from deploypipe.formats.inspection import Inspection
from deploypipe.formats.reading import inspect_artifact
from deploypipe.models import MODELS
from deploypipe.parity.file_structure import check_structure
from deploypipe.parity.verdict import Finding
from deploypipe.parity.weights import check_weights


def found(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def failed(findings: list[Finding]) -> list[str]:
    return [f"{finding.check}: {finding.detail}" for finding in findings if not finding.passed]


def write(format: Format, captured: Capture, folder: Path) -> Inspection:
    path = folder / f"model{format.suffix}"
    format.write(captured, path, "{}", [captured.example_inputs])
    return inspect_artifact(path)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "cnn"])
def test_no_false_alarm_on_the_zoo(tmp_path: Path, name: str) -> None:
    entry = MODELS[name]
    model = capture(entry.build(), entry.example(), entry.dynamic)
    for format in FORMATS.values():
        findings = check_structure(model.module, write(format, model, tmp_path), model.signature)
        assert not failed(findings)
        if any(isinstance(part, nn.BatchNorm2d) for part in model.module.modules()):
            continue  # folded into the convolution before it, or its count of batches left out
        total = len(model.module.state_dict())
        weights = f"{total} of {total} weights equal to the bit" if total else "the module has no weights"
        assert found(findings)["weights"].detail == weights


class Network(nn.Module):
    """Its last layer takes three axes, so that ONNX gets its weight transposed and under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


def export_onnx(module: nn.Module, example: tuple[Tensor, ...], path: Path, **options: Any) -> onnx.ModelProto:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example, path, **{"external_data": False, "verbose": False, **options})
    return onnx.load(path)


def weights_of(module: nn.Module, example: tuple[Tensor, ...], path: Path, **options: Any) -> Finding:
    export_onnx(module, example, path, **options)
    return found(check_structure(module, inspect_artifact(path), None))["weights"]


def one_off(weight: np.ndarray) -> None:
    weight[..., 1] *= 1.001


def zeroed(weight: np.ndarray) -> None:
    weight[...] = 0


def narrowed(weight: np.ndarray) -> None:
    weight[...] = weight.astype(np.float16)


def swapped(weight: np.ndarray) -> None:
    weight[[0, 1]] = weight[[1, 0]]


def not_a_number(weight: np.ndarray) -> None:
    weight[3, 0] = np.nan


CHANGES = [
    (
        "first.weight",
        one_off,
        r"'first.weight' \('\w+' in the file\) differs: 8 of 48 values, worst at \[\d, 1\]: file",
    ),
    ("first.weight", swapped, r"'first.weight' \('\w+' in the file\) has its values in another order .*12 of 48"),
    ("first.weight", narrowed, r"'first.weight' \('\w+' in the file\) is rounded to float16 in the file"),
    ("first.weight", not_a_number, r"'first.weight' .* differs: 1 of 48 values, worst at \[3, 0\]: file nan"),
    ("second.bias", zeroed, r"'second.bias' is all zero in the file: 5 of 5 values, .* file 0.0, eager -?0\.\d+"),
    ("second.bias", one_off, r"'second.bias' differs: 1 of 5 values, worst at \[1\]"),
    ("second.bias", narrowed, r"'second.bias' is rounded to float16 in the file"),
]


@pytest.mark.sample(4)
@pytest.mark.parametrize(("name", "change", "reason"), CHANGES, ids=[f"{c[0]} {c[1].__name__}" for c in CHANGES])
def test_a_changed_weight_is_named(
    tmp_path: Path, name: str, change: Callable[[np.ndarray], None], reason: str
) -> None:
    module = Network().eval()
    model = export_onnx(module, (torch.randn(2, 3, 6),), tmp_path / "m.onnx")
    wanted = module.get_parameter(name).detach().numpy()
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer).copy()
        for layout in (values, values.T):
            if np.array_equal(layout, wanted):
                change(layout)
                initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    onnx.save(model, tmp_path / "m.onnx")
    finding = found(check_structure(module, inspect_artifact(tmp_path / "m.onnx"), None))["weights"]
    assert not finding.passed
    assert re.match(reason, finding.detail), finding.detail


@pytest.mark.parametrize("suffix", [".pt2", ".pt"])
def test_another_runs_weights_are_not_these(tmp_path: Path, suffix: str) -> None:
    format = next(entry for entry in FORMATS.values() if entry.suffix == suffix)
    model = capture(Network(), (torch.randn(2, 3, 6),))
    other = copy.deepcopy(model.module)
    with torch.no_grad():
        other.first.bias.add_(1e-3)
        other.second.weight.mul_(1.001)
    finding = found(check_structure(other, write(format, model, tmp_path), model.signature))["weights"]
    assert not finding.passed
    assert finding.detail.startswith("'first.bias' differs: 8 of 8 values, worst at [")
    assert finding.detail.endswith("; and 1 more weights of 4")


class Folded(nn.Module):
    """What exporters compute of weights: scaled, merged, turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(16, 16)
        self.down, self.up = nn.Parameter(torch.randn(16, 2) * 0.01), nn.Parameter(torch.randn(2, 16) * 0.01)
        self.scaled = nn.Parameter(torch.randn(16, 16))
        self.turned = nn.Parameter(torch.randn(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.base.weight + self.down @ self.up, self.base.bias)
        return F.linear(F.linear(x, self.scaled * 0.999), self.turned.flip(0))


def with_statistics(module: nn.Module, example: Tensor) -> nn.Module:
    with torch.no_grad():
        for _ in range(3):
            module.train()(example)
        for name, parameter in module.named_parameters():
            parameter.add_(torch.rand_like(parameter) * 0.3 if "1." in name else 0.0)
    return module.eval()


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.layer, self.head = kind(5, 7, batch_first=True), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.embedding(x))


class Scalars(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.5))
        self.register_buffer("std", torch.tensor(0.5))
        self.register_buffer("nothing", torch.empty(0))
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - self.mean) / self.std


def normalised() -> nn.Module:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3), nn.BatchNorm2d(6)
    )
    return with_statistics(layers, torch.randn(4, 3, 6, 6))


IMAGE = (torch.randn(2, 3, 6, 6),)
RIGHT: list[tuple[str, Callable[[], nn.Module], tuple[Tensor, ...], str]] = [
    ("computed from", Folded, (torch.randn(2, 16),), "1 of 6 weights equal to the bit, 5 not in the file as they are"),
    ("normalised", normalised, IMAGE, "0 of 14 weights equal to the bit, 4 as folding a batch normalisation"),
    ("lstm", lambda: Recurrent(nn.LSTM), (torch.randn(2, 4, 5),), "2 of 6 weights equal to the bit, 4 not"),
    ("gru", lambda: Recurrent(nn.GRU), (torch.randn(2, 4, 5),), "2 of 6 weights equal to the bit, 4 not"),
    ("tied", Tied, (torch.randint(0, 20, (2, 3)),), "2 of 2 weights equal to the bit"),
    ("scalars", Scalars, (torch.ones(2, 4, dtype=torch.uint8),), "2 of 4 weights equal to the bit, 2 not"),
]


@pytest.mark.sample(3)
@pytest.mark.parametrize(("build", "example", "detail"), [case[1:] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_what_exporters_make_of_weights_is_no_failure(
    tmp_path: Path, build: Callable[[], nn.Module], example: tuple[Tensor, ...], detail: str
) -> None:
    module = build().eval()
    finding = weights_of(module, example, tmp_path / "m.onnx")
    assert finding.passed and finding.detail.startswith(detail), finding.detail


@pytest.mark.nightly
@pytest.mark.parametrize("options", [{"dynamo": False}, {"optimize": False}], ids=["old exporter", "not optimised"])
@pytest.mark.parametrize(("build", "example"), [case[1:3] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_nor_is_what_they_make_otherwise(
    tmp_path: Path, build: Callable[[], nn.Module], example: tuple[Tensor, ...], options: dict[str, Any]
) -> None:
    assert weights_of(build().eval(), example, tmp_path / "m.onnx", **options).passed


def test_a_wrongly_folded_normalisation_is_a_changed_weight(tmp_path: Path) -> None:
    module = normalised()
    model = export_onnx(module, IMAGE, tmp_path / "m.onnx")
    (weight,) = (entry for entry in model.graph.initializer if entry.name == "0.weight")
    values = numpy_helper.to_array(weight).copy()
    values[2, 1, 0, 0] *= 1.001
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "m.onnx")
    finding = found(check_structure(module, inspect_artifact(tmp_path / "m.onnx"), None))["weights"]
    assert not finding.passed and finding.detail.startswith("'0.weight' differs")


HELD = torch.linspace(-1, 1, 24).reshape(2, 3, 4)


def holder(weight: Tensor) -> nn.Module:
    module = nn.Module()
    module.register_buffer("w", weight)
    return module


@pytest.mark.parametrize(
    ("constant", "passes"),
    [
        pytest.param(HELD, True, id="the same"),
        pytest.param(HELD.permute(2, 0, 1), True, id="another order of axes"),
        pytest.param(HELD.reshape(6, 4), True, id="another shape"),
        pytest.param(HELD.half(), False, id="another dtype"),
        pytest.param(HELD[:1], False, id="a part"),
        pytest.param(HELD.flip(0), False, id="turned round"),
        pytest.param(HELD.bfloat16().float(), False, id="rounded"),
    ],
)
def test_a_constant_of_the_weights_name(constant: Tensor, passes: bool) -> None:
    assert check_weights(holder(HELD), {"w": constant}).passed is passes


@pytest.mark.parametrize("weight", [torch.tensor([float("nan"), 1.0]), torch.tensor([1 + 2j]), torch.tensor([True])])
def test_bits_are_compared_whatever_they_mean(weight: Tensor) -> None:
    assert check_weights(holder(weight), {"w": weight.clone()}).passed


def test_zero_and_minus_zero_are_other_bits() -> None:
    finding = check_weights(holder(torch.tensor([0.0, 1.0])), {"w": torch.tensor([-0.0, 1.0])})
    assert finding.detail == "'w' differs: 1 of 2 values, worst at [0]: file -0.0, eager 0.0"


def test_an_imaginary_minus_zero_too() -> None:
    weight = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]))
    finding = check_weights(holder(weight), {"w": weight.conj().resolve_conj()})
    assert finding.detail.startswith("'w' differs: 2 of 2 values, worst at [0]")


AXES = TensorSpec("x", "float32", ("batch", 6))


@pytest.mark.parametrize(
    ("dynamic", "passes", "detail"),
    [
        ({"x": {0: "batch"}}, True, "symbolic: x[0], output[0]"),
        ({}, False, "axis 0 of 'x' is fixed to 2 in the graph, not batch; axis 0 of 'output' is fixed to 2"),
    ],
    ids=["symbolic", "fixed to the example's"],
)
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_the_batch_axis(tmp_path: Path, suffix: str, dynamic: Any, passes: bool, detail: str) -> None:
    format = next(entry for entry in FORMATS.values() if entry.suffix == suffix)
    wanted = Signature((AXES,), (TensorSpec("output", "float32", ("batch", 5)),))
    inspection = write(format, capture(Network(), (torch.randn(2, 6),), dynamic), tmp_path)
    finding = found(check_structure(Network(), inspection, wanted))["batch axis"]
    assert finding.passed is passes and finding.detail.startswith(detail)


def test_train_mode_external_data_and_a_device(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(40, 40), nn.Dropout(0.5)).train()
    export_onnx(module, (torch.ones(1, 40),), tmp_path / "m.onnx", external_data=True)
    inspection = inspect_artifact(tmp_path / "m.onnx")
    inspection.devices = frozenset({"cpu", "cuda:0"})
    findings = found(check_structure(module.eval(), inspection, None))
    assert [name for name, finding in findings.items() if not finding.passed] == [
        "train mode", "external data", "device",
    ]  # fmt: skip
    assert findings["train mode"].detail.startswith("Dropout 'node_")
    assert "module '1'" in findings["train mode"].detail
    assert findings["external data"].detail == "needs another file beside it: m.onnx.data"
    assert findings["device"].detail == "cuda:0 is baked in: it runs nowhere else"
