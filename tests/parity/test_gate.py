"""The gate as a whole, on real files."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import deploypipe
from deploypipe.capture import capture
from deploypipe.contract.seal import digest_of
from deploypipe.contract.tensors import Array
from deploypipe.data import Split
from deploypipe.errors import ParityError, UsageError
from deploypipe.export import plan, write_proven
from deploypipe.formats import FORMATS
from deploypipe.formats.session import SEAL, Session
from deploypipe.parity.classification import compare_classes
from deploypipe.parity.gate import Gate
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import Reference, float64
from deploypipe.parity.tolerances import NO_OVERRIDES, TOLERANCES, Overrides, parse_overrides, tolerance_of
from deploypipe.verify import Subjects, gate_for, inputs_of, verify_module

X = torch.linspace(-1, 1, 12).reshape(4, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.fixture(scope="module", params=FORMATS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gate") / f"net{FORMATS[request.param].suffix}"
    deploypipe.export(Net().eval(), (X,), format=request.param, path=path, dynamic={"x": {0: "batch"}})
    return path


def test_the_whole_gate_passes_what_was_exported(written: Path) -> None:
    gate = gate_for(Net(), (X,), inputs_of(written))
    report = gate.examine(written)
    families = {outcome.family for outcome in report.outcomes}
    assert report.passed, report.reason
    assert {"example", "drawn", "all zero", "rows alone", "same call again", "1 thread", "fresh process"} <= families
    assert ("optimisation off" in families) == (written.suffix == ".onnx")
    assert {finding.check for finding in report.findings} == {
        "weights", "batch axis", "train mode", "external data", "device", "provenance",
        "non-finite inputs",
    }  # fmt: skip
    measured = [outcome.distance for outcome in report.outcomes if outcome.family == "drawn"]
    assert all(distance.error >= 0 and distance.eager_error >= 0 for distance in measured)


def test_an_artifact_carries_the_digest_of_its_proof(written: Path) -> None:
    sidecar = json.loads(written.with_name(f"{written.name}.json").read_text())
    assert deploypipe.load(written).seal == {"verdict": "passed", "sha256": digest_of(sidecar["parity"])}
    assert SEAL.encode() in written.read_bytes()


@pytest.mark.sample(1)
def test_a_wrong_artifact_is_named_located_and_reproducible(written: Path, tmp_path: Path) -> None:
    """The module has moved on: its second layer is another."""
    module = Net()
    with torch.no_grad():
        module.second.bias += 0.5
    verified = verify_module(module, (X,), Subjects((Path(shutil.copy(written, tmp_path)),)))
    (report,) = verified.reports
    assert not report.passed and report.culprit and report.culprit.module == "second"
    assert report.culprit.source.startswith("test_gate.py:")
    assert "weights: 'second.bias' differs" in report.reason and "comparisons, first output 'output'" in report.reason
    document = json.loads(verified.document.read_text())
    assert document["verdict"] == "failed" and document["artifacts"][0]["culprit"]["module"] == "second"
    script = subprocess.run([sys.executable, str(verified.script)], cwd=tmp_path, capture_output=True, text=True)
    assert script.returncode == 1 and "DIFFERS" in script.stdout, script.stderr


def test_a_setting_under_which_it_differs_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    deploypipe.export(Net().eval(), (X,), format="onnx", path=path, dynamic={"x": {0: "batch"}})
    other = tmp_path / "other.onnx"
    wrong = Net().eval()
    with torch.no_grad():
        wrong.second.bias += 1
    deploypipe.export(wrong, (X,), format="onnx", path=other, dynamic={"x": {0: "batch"}})
    variants = {"optimisation off": lambda: FORMATS["onnx"].read(other, "cpu", None)}
    monkeypatch.setattr("deploypipe.formats.onnx.read.variants", lambda path, device: variants)
    report = gate_for(Net(), (X,), inputs_of(path)).examine(path, fresh=False)
    assert {failure.family for failure in report.failures} == {"optimisation off"}
    assert not report.passed and report.evidence


@pytest.mark.parametrize("nudge", [1, 100], ids=["by rounding", "by more than rounding"])
def test_float64_rules_where_the_tolerance_is_loose(nudge: int) -> None:
    """1e-4 is allowed between runtimes; what rounding cannot explain is not."""

    class Off(Session):
        runtime, provider = "onnxruntime", "cpu"

        def __init__(self) -> None:
            super().__init__("", "", "cpu")

        def run(self, arrays: Sequence[Array]) -> list[Array]:
            with torch.no_grad():
                return [(module(torch.from_numpy(arrays[0])) + nudge * 2e-7).numpy()]

    module = Net().eval()
    report = Gate(Reference(module), (Probe("given", (X,)),)).examine_runner(deploypipe.Runner(Off()), "artifact")
    assert report.passed == (nudge == 1), report.reason
    assert ("away from float64, eager only" in report.reason) == (nudge == 100)
    loose = Gate(Reference(module), (Probe("given", (X,)),), overrides=Overrides(atol={"": 1e-3}))
    assert loose.examine_runner(deploypipe.Runner(Off()), "artifact").passed


class Stubborn(nn.Module):
    """Names float32 wherever it can."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.float32) + torch.zeros(3, dtype=torch.float32) + torch.tensor(0.1)
        return x.float().sum(0) / 3


def test_the_reference_is_float64_whatever_dtype_the_code_names() -> None:
    with float64():
        exact = Stubborn()(X.double())
    assert exact.dtype == torch.float64 and torch.get_default_dtype() == torch.float32
    assert 0 < (exact - Stubborn()(X)).abs().max() < 1e-6


CLASSES = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 1.00001]])


@pytest.mark.parametrize(
    ("artifact", "passed", "words"),
    [
        (CLASSES, True, "2 of 2 classes are eager's; accuracy 100.00%, eager 100.00%"),
        (CLASSES + torch.tensor([[0, 1e-4, 0], [0, 1e-4, 0]]), True, "1 flipped, 0 of them though eager was sure"),
        (CLASSES.flip(1), False, "test image 0: class 2, eager 0 with a margin of 1"),
        (CLASSES.roll(1, 1), False, "2 flipped, 2 of them though eager was sure"),
    ],
    ids=["equal", "a tie that rounding decides", "classes permuted", "classes moved"],
)
def test_a_class_may_flip_only_where_eager_was_not_sure(artifact: Tensor, passed: bool, words: str) -> None:
    finding = compare_classes(CLASSES, artifact, torch.tensor([0, 2]))
    assert (finding.passed, words in finding.detail) == (passed, True), finding


class Rare(nn.Module):
    """NaN for one image of all."""

    def __init__(self, nan: bool) -> None:
        super().__init__()
        self.nan = nan

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.flatten(1).float()
        logits = torch.stack([x.mean(1), x.amax(1)], 1)
        return torch.where((x.sum(1) == 77)[:, None], torch.nan, logits) if self.nan else logits


def test_every_test_image_goes_through(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (700, 1, 4, 4), dtype=torch.uint8)
    images[613] = 0
    images[613, 0, 0, 0] = 77
    prepared = plan(capture(Rare(True).eval(), (images[:2],), {"pixels": {0: "batch"}}), [(images[:2],)])
    write_proven(prepared, "onnx", tmp_path / "rare.onnx")
    gate = Gate(Reference(Rare(False)), (Probe("some", (images[:2],)),), Split(images, torch.zeros(700).long()))
    report = gate.examine(tmp_path / "rare.onnx", fresh=False)
    assert [failure.family for failure in report.failures] == ["all test images"]
    assert "[113, 0]: artifact nan" in report.reason  # of the second 500


@pytest.mark.parametrize(
    ("atol", "rtol", "expected"),
    [
        (["1e-3"], [], Overrides({"": 1e-3})),
        (["1e-3", "logits:1e-5"], ["a.b:0"], Overrides({"": 1e-3, "logits": 1e-5}, {"a.b": 0.0})),
    ],
    ids=["every output", "by name"],
)
def test_tolerances_are_overridden_by_name(atol: list[str], rtol: list[str], expected: Overrides) -> None:
    assert parse_overrides(atol, rtol) == expected


@pytest.mark.parametrize("text", ["logits", "logits:", "-1", "nan", "inf", "logits:1e-5:x"])
def test_what_is_no_tolerance_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no tolerance"):
        parse_overrides([text], [])


def test_an_override_of_no_output_is_refused(written: Path) -> None:
    with pytest.raises(UsageError, match=r"no output scores\. The outputs: output\."):
        deploypipe.verify(Net(), written, [(X,)], overrides=Overrides({"scores": 1.0}))


def test_a_plain_onnx_file_is_verified_without_a_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    axes = ({0: torch.export.Dim("rows")},)
    torch.onnx.export(Net().eval(), (X,), str(path), dynamo=True, dynamic_shapes=axes, external_data=False)
    report = gate_for(Net(), (X,), inputs_of(path)).examine(path, fresh=False)
    assert report.passed, report.reason
    assert {outcome.shapes for outcome in report.outcomes} >= {"1x3", "257x3"}


def test_a_plain_onnx_file_with_a_fixed_batch_fails_where_it_should_be_free(tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    torch.onnx.export(Net().eval(), (X,), str(path), dynamo=True, external_data=False)
    assert gate_for(Net(), (X,), inputs_of(path)).examine(path, fresh=False).passed
    report = gate_for(Net(), (X,), inputs_of(path), {"x": {0: "batch"}}).examine(path, fresh=False)
    assert "batch axis: axis 0 of 'x' is fixed to 4 in the graph, not batch" in report.reason


def test_a_file_that_cannot_be_loaded_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"not a model")
    with pytest.raises(ParityError, match="cannot be loaded"):
        deploypipe.verify(Net(), tmp_path / "net.onnx", [(X,)])


def test_a_dtype_that_the_table_lacks_is_held_to_float32() -> None:
    assert tolerance_of(torch.float8_e4m3fn, "onnxruntime", "y", NO_OVERRIDES) == TOLERANCES["torch", "float32"]


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.lstm(x)[0]
        return outputs


def lstm_file(lstm: nn.LSTM, path: Path) -> None:
    """As people write it by hand. ONNX has the gates in another order than torch, and a direction among the axes."""
    rows = torch.cat([torch.arange(4) + 4 * gate for gate in (0, 3, 1, 2)])
    bias = torch.cat([lstm.bias_ih_l0[rows], lstm.bias_hh_l0[rows]])
    weights = {"W": lstm.weight_ih_l0[rows], "R": lstm.weight_hh_l0[rows], "B": bias}
    constants = [numpy_helper.from_array(value.detach()[None].numpy(), name) for name, value in weights.items()]
    axes = numpy_helper.from_array(torch.tensor([1]).numpy(), "direction")
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["by direction"], hidden_size=4),
        helper.make_node("Squeeze", ["by direction", "direction"], ["y"]),
    ]
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 3])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", "batch", 4])
    graph = helper.make_graph(nodes, "lstm", [takes], [gives], [*constants, axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def test_an_artifact_that_ends_its_process_is_reported_and_ends_no_other(tmp_path: Path) -> None:
    """ONNX Runtime's LSTM calls `terminate` for an empty batch, which eager takes."""
    module, path = Remembers().eval(), tmp_path / "lstm.onnx"
    lstm_file(module.lstm, path)
    assert deploypipe.verify(module, path, [(torch.rand(5, 2, 3),)]).passed
    report = deploypipe.verify(module, path, [(torch.rand(5, 2, 3),), (torch.rand(5, 0, 3),)])
    assert not report.passed and "the artifact ends its process" in report.reason and "5x0x3" in report.reason
