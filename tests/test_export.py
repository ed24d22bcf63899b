import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from support import clean_environment
from torch import Tensor, nn

import deploypipe
from deploypipe.contract.run import Run
from deploypipe.contract.signature import TensorSpec
from deploypipe.data import dataset_of
from deploypipe.errors import ExportError, ParityError, UsageError
from deploypipe.export import export_run, plan_run
from deploypipe.formats import FORMATS
from deploypipe.formats.reading import read_artifact
from deploypipe.models import MODELS, entry_of
from deploypipe.models.trained import load_trained
from deploypipe.parity.probes import drawn_probes
from deploypipe.train import TrainConfig, train

SUFFIXES = [(entry.name, entry.suffix) for entry in FORMATS.values()]
ROWS = {"x": {0: "batch"}}


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.dropout(torch.relu(self.layer(x)))
        return {"scores": hidden.softmax(dim=-1), "best": hidden.argmax(dim=-1)}


@pytest.mark.parametrize(("format", "suffix"), SUFFIXES)
def test_export_load_verify(tmp_path: Path, format: str, suffix: str) -> None:
    module = TwoHeads()  # in train mode, as its author left it
    weights = copy.deepcopy(module.state_dict())
    example = (torch.randn(2, 3),)
    with pytest.warns(UserWarning, match="TwoHeads is in train mode: it is exported in eval mode"):
        artifact = deploypipe.export(module, example, format=format, path=tmp_path / f"m{suffix}", dynamic=ROWS)
    assert module.training and all(torch.equal(weights[name], value) for name, value in module.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"m{suffix}", f"m{suffix}.json"]
    assert [str(spec) for spec in artifact.signature.inputs] == ["x: float32[batch, 3]"]
    assert [str(spec) for spec in artifact.signature.outputs] == ["scores: float32[batch, 4]", "best: int64[batch]"]
    assert artifact.parity["verdict"] == "passed" and artifact.parity["comparisons"] >= 12

    runner = deploypipe.load(artifact.path)
    x = torch.randn(9, 3)
    wanted, found = module.eval()(x), runner(x)
    assert list(found) == ["scores", "best"]
    torch.testing.assert_close(found["scores"], wanted["scores"], atol=1e-5, rtol=1e-5)
    assert torch.equal(found["best"], wanted["best"])
    assert deploypipe.verify(module, artifact.path, [(x,)]).passed


@pytest.mark.parametrize(("format", "suffix"), SUFFIXES)
def test_what_does_not_fit_the_signature_is_refused(digits_run: Run, format: str, suffix: str) -> None:
    runner = deploypipe.load(digits_run.exports / f"model{suffix}")
    with pytest.raises(TypeError, match=r"expected pixels: uint8\[batch, 1, 28, 28\], got float32\[1, 1, 28, 28\]"):
        runner(torch.zeros(1, 1, 28, 28))
    with pytest.raises(TypeError, match="expected 1 inputs"):
        runner()


def test_the_sidecar_says_what_the_artifact_is(digits_run: Run) -> None:
    path = digits_run.exports / "model.onnx"
    document = json.loads((digits_run.exports / "model.onnx.json").read_text())
    assert document["schema"] == "deploypipe.artifact/1" and document["format"] == "onnx"
    assert document["provenance"]["weights_sha256"] == digits_run.document["weights_sha256"]
    assert document["provenance"]["dataset"]["sha256"] == digits_run.document["dataset"]["sha256"]
    assert document["parity"]["verdict"] == "passed"
    assert read_artifact(path).sha256 == document["sha256"]


@pytest.mark.parametrize("suffix", [suffix for _, suffix in SUFFIXES])
def test_the_artifact_carries_its_own_description(digits_run: Run, suffix: str) -> None:
    runner = deploypipe.load(digits_run.exports / f"model{suffix}")
    assert runner.metadata["provenance"]["weights_sha256"] == digits_run.document["weights_sha256"]
    assert runner.signature == read_artifact(digits_run.exports / f"model{suffix}").signature


def test_onnx_is_one_checked_file_with_a_symbolic_batch_and_uint8_pixels(digits_run: Run) -> None:
    path = digits_run.exports / "model.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 20
    (pixels,) = model.graph.input
    axes = [axis.dim_param or axis.dim_value for axis in pixels.type.tensor_type.shape.dim]
    assert (pixels.name, axes) == ("pixels", ["batch", 1, 28, 28])
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert not list(path.parent.glob("*.data"))


def test_onnxruntime_alone_reproduces_the_logits(digits_run: Run, tmp_path: Path) -> None:
    """In a process that never imports deploypipe or torch."""
    dataset = dataset_of(digits_run)
    assert dataset is not None
    images = dataset.test.inputs[:7]
    with torch.no_grad():
        wanted = load_trained(digits_run)(images)
    import numpy as np

    np.save(tmp_path / "images.npy", images.numpy())
    code = (
        "import sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "numpy.save('logits.npy', session.run(['logits'], {'pixels': numpy.load('images.npy')})[0])\n"
        "assert not {'deploypipe', 'torch'} & set(sys.modules)\n"
    )
    model = str(digits_run.exports / "model.onnx")
    subprocess.run([sys.executable, "-c", code, model], cwd=tmp_path, check=True)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "logits.npy")), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("suffix", [suffix for _, suffix in SUFFIXES])
def test_a_changed_file_is_not_loaded(digits_run: Run, tmp_path: Path, suffix: str) -> None:
    for name in (f"model{suffix}", f"model{suffix}.json"):
        (tmp_path / name).write_bytes((digits_run.exports / name).read_bytes())
    path = tmp_path / f"model{suffix}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ParityError, match="not the file that was proven"):
        deploypipe.load(path)


@pytest.mark.parametrize("suffix", [suffix for _, suffix in SUFFIXES])
def test_a_truncated_file_is_named(digits_run: Run, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes((digits_run.exports / f"model{suffix}").read_bytes()[:1000])
    with pytest.raises(ParityError, match=f"model{suffix} cannot be loaded on cpu"):
        deploypipe.load(path)


def wrong_writer(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    """Make the format write a module whose weights are not the captured ones."""
    honest = FORMATS[format].write

    def write(capture: Any, path: Path, metadata: str, probes: Any) -> str:
        other = copy.deepcopy(capture.module)
        with torch.no_grad():
            next(iter(other.parameters())).add_(0.01)
        from deploypipe.capture import capture as recapture

        changed = recapture(other, capture.example_inputs, ROWS)
        return honest(changed, path, metadata, [])

    monkeypatch.setattr(f"{FORMATS[format].package}.write.write", write)


@pytest.mark.parametrize(("format", "suffix"), SUFFIXES)
def test_a_wrong_artifact_never_reaches_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, suffix: str
) -> None:
    path = tmp_path / f"m{suffix}"
    deploypipe.export(TwoHeads().eval(), (torch.randn(2, 3),), format=format, path=path, dynamic=ROWS)
    before = path.read_bytes()
    wrong_writer(monkeypatch, format)
    with pytest.raises(ParityError, match="output 'scores' on example"):
        deploypipe.export(TwoHeads().eval(), (torch.randn(2, 3),), format=format, path=path, dynamic=ROWS)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


class FixedSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(3)


@pytest.mark.parametrize(
    ("module", "options", "error", "message"),
    [
        (
            FixedSize(),
            {"dynamic": {"x": {1: "width"}}, "format": "onnx"},
            ExportError,
            r"test_export.py:\d+: `return x \+ torch.ones\(3\)`",
        ),
        (TwoHeads(), {"dynamic": {"y": {0: "batch"}}, "format": "onnx"}, UsageError, "'y' is no argument of TwoHeads"),
        (TwoHeads(), {"format": "tflite"}, UsageError, "no format 'tflite'.*onnx"),
        (TwoHeads(), {"format": "pt2"}, UsageError, "ends in .pt2, not in 'm.onnx'"),
        (TwoHeads(), {"format": "onnx", "output_names": ["a"]}, UsageError, "1 output names were given for 2 outputs"),
    ],
    ids=["fixed axis", "no such argument", "no such format", "wrong suffix", "output names"],
)
def test_refusals(tmp_path: Path, module: nn.Module, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        deploypipe.export(module.eval(), (torch.randn(2, 3),), path=tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []


LARGE = ("cnn", "simple-cnn", "wide-cnn")
STATIC = [
    pytest.param(name, marks=[pytest.mark.nightly] if name in LARGE else [])
    for name in MODELS
    if not name.startswith("dynamic") and name != "sentence"
]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", STATIC)
def test_every_static_network_of_the_zoo_in_every_format(tmp_path: Path, name: str) -> None:
    entry = entry_of(name)
    data = "digits" if "digits" in entry.datasets else "auto"
    run = train(TrainConfig(model=name, data=data, epochs=1, device="cpu"), tmp_path)
    artifacts = [row.proven()[0] for row in export_run(run, list(FORMATS), plan_run(run))]
    assert [artifact.parity["verdict"] for artifact in artifacts] == ["passed"] * len(FORMATS)
    assert len(run.artifacts()) == len(FORMATS)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import torch, deploypipe\n"
        "from torch import nn\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    deploypipe.export(nn.Linear(3, 3), (torch.zeros(2, 3),), format='onnx', path='m.onnx')\n"
        "    print('written', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != "written\n":
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)  # somewhere in the next export
    process.wait(timeout=60)
    names = {path.name for path in tmp_path.iterdir()} - {".cache"}
    assert names <= {"m.onnx", "m.onnx.json"}
    deploypipe.load(tmp_path / "m.onnx")


DYNAMIC = ["dynamic-branch", "dynamic-depth", pytest.param("sentence", marks=pytest.mark.nightly)]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", DYNAMIC)
def test_every_dynamic_network_of_the_zoo_in_every_format(tmp_path: Path, name: str) -> None:
    run = train(TrainConfig(model=name, epochs=1 if entry_of(name).datasets else None, device="cpu"), tmp_path)
    artifacts = [row.proven()[0] for row in export_run(run, list(FORMATS), plan_run(run))]
    assert [artifact.parity["verdict"] for artifact in artifacts] == ["passed"] * len(FORMATS)
    (site,) = read_artifact(artifacts[0].path).control_flow
    assert site.became in ("cond", "while_loop") and site.unproven == ()
    assert site.proven == (("false", "true") if name == "dynamic-branch" else ("0", "1", "many"))


@pytest.mark.parametrize("name", ["m.onnx", "m.onnx.json"])
def test_what_deploypipe_did_not_write_is_not_overwritten(tmp_path: Path, name: str) -> None:
    users = tmp_path / name
    users.write_text('{"mine": true}')
    with pytest.raises(UsageError, match=rf"{name} was not written by deploypipe: it is left as it is"):
        deploypipe.export(nn.Linear(3, 3).eval(), (torch.ones(2, 3),), format="onnx", path=tmp_path / "m.onnx")
    assert users.read_text() == '{"mine": true}' and list(tmp_path.iterdir()) == [users]


@pytest.mark.parametrize(("format", "suffix"), SUFFIXES)
def test_an_artifact_of_before_is_overwritten_also_without_its_sidecar(
    tmp_path: Path, format: str, suffix: str
) -> None:
    path, module, example = tmp_path / f"m{suffix}", nn.Linear(3, 3).eval(), (torch.ones(2, 3),)
    first = deploypipe.export(module, example, format=format, path=path)
    first.sidecar.unlink()
    deploypipe.export(module, example, format=format, path=path)
    assert read_artifact(path).parity["verdict"] == "passed"


class Rare(nn.Module):
    """Its second outcome is taken by no input that a search would try."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() == 12345.0:
            return x - 1
        return x + 1


def test_an_outcome_that_no_probe_takes_is_warned_of_or_refused(tmp_path: Path) -> None:
    path, example, rare = tmp_path / "m.onnx", (torch.ones(2, 3),), Rare().eval()
    with pytest.warns(UserWarning, match=r"test_export.py:\d+: no probe takes the outcome true of this if"):
        artifact = deploypipe.export(rare, example, format="onnx", path=path)
    assert artifact.control_flow[0].unproven == ("true",)
    with pytest.raises(ParityError, match="no probe takes the outcome true of this if"):
        deploypipe.export(rare, example, format="onnx", path=tmp_path / "n.onnx", require_coverage=True)
    assert not (tmp_path / "n.onnx").exists()
    probe = torch.zeros(2, 3)
    probe[0, 0] = 12345
    proven = deploypipe.export(
        rare, example, format="onnx", path=path, probes=[(probe,), example], require_coverage=True
    )
    assert proven.control_flow[0].proven == ("false", "true")


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x + 1, 0.5)


class Table(nn.Module):
    """Takes up to 16 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(torch.arange(tokens.shape[1])) + tokens.unsqueeze(-1)


@pytest.mark.parametrize("example", [torch.zeros(2, 3), torch.full((2, 3), -torch.inf)], ids=["zeros", "infinity"])
def test_randomness_is_refused_even_where_the_example_hides_it(tmp_path: Path, example: Tensor) -> None:
    with pytest.raises(ExportError, match=r"random|Random"):
        deploypipe.export(Noisy().eval(), (example,), format="pt2", path=tmp_path / "m.pt2")


@pytest.mark.parametrize("example", [torch.zeros(2, 3), torch.tensor([[1.0, torch.nan, 2.0]])], ids=["constant", "NaN"])
def test_drawn_probes_vary_whatever_the_example(example: Tensor) -> None:
    spec = TensorSpec("x", "float32", tuple(example.shape))
    drawn = [probe for probe in drawn_probes((spec,), (example,)) if probe.family == "drawn"]
    assert len(drawn) == 6 and all(probe.inputs[0].isfinite().all() for probe in drawn)
    assert all(probe.inputs[0].std() > 0 for probe in drawn)


def test_a_drawn_probe_that_eager_refuses_is_a_remark_not_a_failure(tmp_path: Path) -> None:
    tokens = torch.arange(6).reshape(2, 3)
    with pytest.warns(UserWarning, match=r"not proven: probe drawn \[\d+x257\]: the eager model fails"):
        artifact = deploypipe.export(
            Table().eval(), (tokens,), format="onnx", path=tmp_path / "m.onnx", dynamic={"tokens": {1: "length"}}
        )
    assert artifact.parity["comparisons"] >= 4


class Median(nn.Module):
    """ONNX has no such operator."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def test_every_format_is_tried(tmp_path: Path) -> None:
    from deploypipe.capture import capture
    from deploypipe.export import plan, write_each

    paths = {name: tmp_path / f"m{suffix}" for name, suffix in SUFFIXES}
    rows = {row.format: row for row in write_each(plan(capture(Median().eval(), (torch.rand(2, 3),))), paths)}
    with pytest.raises(ExportError, match="cannot be written as onnx"):
        rows["onnx"].proven()
    assert rows["pt2"].proven()[1].passed and rows["torchscript"].proven()[1].passed


class SameNames(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"x": x + 1, "a": (x * 2, x * 3), "a_0": x * 4}


def test_names_that_clash_get_names_of_their_own(tmp_path: Path) -> None:
    artifact = deploypipe.export(SameNames().eval(), (torch.rand(2),), format="onnx", path=tmp_path / "m.onnx")
    assert [spec.name for spec in artifact.signature.outputs] == ["x_out", "a_0", "a_1", "a_0_out"]
    x = torch.rand(2)
    found = deploypipe.load(artifact.path)(x)
    assert torch.equal(found["x"], x + 1) and torch.equal(found["a_0"], x * 4) and torch.equal(found["a"][1], x * 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"args": 3}, "the example must be a tuple of arguments, a dict of keyword arguments or a Call, not a int"),
        ({"args": (3,)}, "the example holds no tensor"),
        ({"args": (torch.rand(2, 3), 3)}, "the example does not fit TwoHeads.forward: too many positional arguments"),
        ({"args": (object(),)}, "the example holds a object as `x`: a call may hold tensors, None, numbers"),
        ({"probes": [torch.rand(2, 3)]}, "a probe must be a tuple of arguments"),
        ({"probes": [{"y": torch.rand(2, 3)}]}, "a probe does not fit the call that was captured: missing .*'x'"),
        ({"dynamic": {"x": ["batch"]}}, "must be axis → symbol"),
        ({"dynamic": {"x": {5: "batch"}}}, "'x' has no axis 5: it has 2"),
        ({"dynamic": {"x": {0: "n", 1: "n"}}}, "axes of sizes 2 and 3 cannot both be 'n'"),
        ({"output_names": ["x", "b"]}, "must differ from each other and from the inputs'"),
    ],
    ids=[
        "no arguments",
        "number",
        "too many",
        "object",
        "bare probe",
        "no such argument",
        "list of axes",
        "no such axis",
        "one symbol, two sizes",
        "name clash",
    ],
)
def test_arguments_of_the_wrong_kind_are_named(tmp_path: Path, arguments: Any, message: str) -> None:
    given = {"args": (torch.rand(2, 3),), "format": "onnx", "path": tmp_path / "m.onnx", **arguments}
    with pytest.raises(UsageError, match=message):
        deploypipe.export(TwoHeads().eval(), **given)


def test_an_own_module_s_artifact_says_where_it_comes_from(tmp_path: Path) -> None:
    module = TwoHeads().eval()
    artifact = deploypipe.export(module, (torch.rand(2, 3),), format="pt2", path=tmp_path / "m.pt2")
    assert artifact.provenance["model"] == "TwoHeads" and len(artifact.provenance["weights_sha256"]) == 64
    assert "torch" in artifact.provenance["versions"]


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return self.layer(x)


@pytest.mark.parametrize(("format", "suffix"), [("onnx", ".onnx"), ("pt2", ".pt2"), ("torchscript", ".pt")])
def test_an_artifact_never_changes_the_callers_tensor(format, suffix, tmp_path):
    module, x = InPlace().eval(), torch.randn(4, 3)
    path = tmp_path / f"m{suffix}"
    deploypipe.export(module, (x[:2],), format=format, path=path, dynamic={"x": {0: "batch"}})
    given, expected = x.clone(), module(x.clone())
    torch.testing.assert_close(deploypipe.load(path)(given), expected)
    assert torch.equal(given, x)


def test_what_pytorch_quantized_is_refused_in_one_line(tmp_path):
    rounded = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.GRUCell(3, 2)), {nn.GRUCell}, dtype=torch.qint8)
    with pytest.raises(ExportError, match="holds a module that PyTorch has quantized, `0`"):
        deploypipe.export(rounded, (torch.randn(2, 3),), format="onnx", path=tmp_path / "m.onnx")


def test_a_weight_that_was_computed_from_others_can_be_copied(tmp_path):
    module = nn.utils.weight_norm(nn.Linear(3, 2)).eval()
    module(torch.randn(2, 3))
    deploypipe.export(module, (torch.randn(2, 3),), format="pt2", path=tmp_path / "m.pt2")
    assert not module.weight.is_leaf


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", FORMATS)
def test_a_layer_that_computes_its_weight_passes_just_made(tmp_path, format):
    """Its weight is then the direction that it is made from, but for the last bit."""
    old = nn.utils.weight_norm(nn.ConvTranspose1d(4, 2, 4, 2, padding=1))
    new = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 3, padding=1))
    module = nn.Sequential(old, new, nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(54, 2)))
    path = tmp_path / f"m{FORMATS[format].suffix}"
    deploypipe.export(module, (torch.randn(2, 4, 9),), format=format, path=path, dynamic={"input": {0: "batch"}})
