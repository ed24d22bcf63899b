"""What is in a file, read alike from every format, whoever wrote it."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from deploypipe.archives.travel import travelling_files
from deploypipe.capture import Capture, capture
from deploypipe.eager import flat_tensors
from deploypipe.errors import ParityError, UsageError
from deploypipe.formats import FORMATS
from deploypipe.formats.format import Format
from deploypipe.formats.inspection import Inspection, author_line
from deploypipe.formats.reading import inspect_artifact
from deploypipe.models import entry_of

SUFFIXES = [entry.suffix for entry in FORMATS.values()]
ROWS = {"x": {0: "batch"}}
EXAMPLE = (torch.linspace(-1, 2, 12).reshape(3, 4),)


class Branches(nn.Module):
    """Weights outside and inside of branches and loops, a value changed in place, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("shift", torch.tensor(0.5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layer(x)
        y += self.shift
        if y.sum() > 0:
            y = self.layer(y)
        for row in x:
            y = y + row
        return y, y.sum()


class Odd(nn.Module):
    """Numbers, an empty tensor, an integer buffer that is not saved, a tensor that is no buffer, ties, uint8."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("nothing", torch.empty(0))
        self.register_buffer("positions", torch.arange(4), persistent=False)
        self.plain = torch.full((4,), 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.float() * self.scale) + self.positions) * self.plain


Written = Callable[[nn.Module, tuple[Tensor, ...], Path], Any]
WRITERS: dict[str, tuple[str, Written]] = {
    "onnx": (".onnx", lambda m, x, p: torch.onnx.export(m, x, p, external_data=False, verbose=False)),
    "onnx, not optimised": (
        ".onnx",
        lambda m, x, p: torch.onnx.export(m, x, p, external_data=False, verbose=False, optimize=False),
    ),
    "onnx, the old exporter": (".onnx", lambda m, x, p: torch.onnx.export(m, x, p, dynamo=False)),
    "pt2": (".pt2", lambda m, x, p: torch.export.save(torch.export.export(m, x), p)),
    "pt2, decomposed": (".pt2", lambda m, x, p: torch.export.save(torch.export.export(m, x).run_decompositions(), p)),
    "torchscript": (".pt", lambda m, x, p: torch.jit.script(m).save(str(p))),
    "torchscript, traced": (".pt", lambda m, x, p: torch.jit.trace(m, x).save(str(p))),
    "torchscript, frozen": (".pt", lambda m, x, p: torch.jit.freeze(torch.jit.script(m)).save(str(p))),
}


def written(writer: str, module: nn.Module, example: tuple[Tensor, ...], folder: Path) -> Path:
    suffix, write = WRITERS[writer]
    path = folder / f"model{suffix}"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        write(module, example, path)
    return path


@functools.cache
def captured(name: str) -> Capture:
    """A model of the zoo, or `Branches`, as deploypipe writes it into every format."""
    if name == "branches":
        return capture(Branches(), EXAMPLE, ROWS)
    return capture(entry_of(name).build(), entry_of(name).example(), entry_of(name).dynamic)


def own(name: str, format: Format, folder: Path) -> Path:
    path = folder / f"model{format.suffix}"
    format.write(captured(name), path, "{}", [captured(name).example_inputs])
    return path


def assert_consistent(inspection: Inspection, inputs: tuple[Tensor, ...], outputs: Any) -> None:
    """Names are unique, each value has its tensor, and what eager returns is among the values."""
    nodes = (*inspection.nodes, *inspection.bodies)
    assert len({node.name for node in nodes}) == len(nodes)
    values = inspection.values(inputs)
    assert not set(values) & set(inspection.constants)
    known = {*values, *inspection.constants, *(name for node in inspection.nodes for name in node.outputs)}
    assert {name for node in inspection.nodes for name in node.inputs if name} <= known
    for wanted in flat_tensors(outputs)[0]:
        same = [value for value in values.values() if value.shape == wanted.shape and value.dtype == wanted.dtype]
        assert any(torch.allclose(value.double(), wanted.double(), atol=1e-4) for value in same)
    again = inspection.values(inputs)
    assert all(torch.equal(again[name], value) for name, value in values.items())


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_branches_and_loops(tmp_path: Path, format: Format) -> None:
    module = captured("branches").module
    inspection = inspect_artifact(own("branches", format, tmp_path))
    for name, weight in module.state_dict().items():
        assert torch.equal(inspection.constants[name], weight)
    assert any("linear" in node.operator or node.operator in ("Gemm", "MatMul") for node in inspection.bodies)
    assert not [node for node in (*inspection.nodes, *inspection.bodies) if node.training]
    assert inspection.external == () and inspection.devices <= {"cpu"}
    for x in (EXAMPLE[0], -EXAMPLE[0], torch.zeros(1, 4), torch.ones(5, 4)):
        with torch.no_grad():
            assert_consistent(inspection, (x,), module(x))


@pytest.mark.sample(3)
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["simple-cnn", "dynamic-depth", "sentence"])
def test_the_zoo(tmp_path: Path, name: str, format: Format) -> None:
    model = captured(name)
    inspection = inspect_artifact(own(name, format, tmp_path))
    with torch.no_grad():
        assert_consistent(inspection, model.example_inputs, model.module(*model.example_inputs))
    if format.name == "torchscript":
        assert inspection.inputs == inspection.outputs == ()
        return
    for found, wanted in (
        (inspection.inputs, model.signature.inputs),
        (inspection.outputs, model.signature.outputs),
    ):
        assert [spec.dtype for spec in found] == [spec.dtype for spec in wanted]
        fixed = [[axis if isinstance(axis, int) else "a symbol" for axis in spec.shape] for spec in found]
        assert fixed == [[axis if isinstance(axis, int) else "a symbol" for axis in spec.shape] for spec in wanted]


@pytest.mark.parametrize("writer", WRITERS)
def test_anyones_file(tmp_path: Path, writer: str) -> None:
    module = Odd().eval()
    example = (torch.arange(8, dtype=torch.uint8).reshape(2, 4),)
    inspection = inspect_artifact(written(writer, module, example, tmp_path))
    with torch.no_grad():
        assert_consistent(inspection, example, module(*example))


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_node_knows_the_authors_submodule_and_line(tmp_path: Path, format: Format) -> None:
    path = own("simple-cnn", format, tmp_path)
    convolutions = [node for node in inspect_artifact(path).nodes if "conv" in node.operator.lower()]
    assert [node.module for node in convolutions] == ["network.0", "network.3"]
    assert all(node.source.startswith("classifiers.py:") for node in convolutions)
    assert convolutions[0].inputs[1:] == ("network.0.weight", "network.0.bias")


class Trained(nn.Module):
    def __init__(self, norm: nn.Module, rate: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.Dropout(rate))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


LIVE = [
    # The newer ONNX exporter writes a batch normalisation as in eval mode whatever its mode is.
    ("onnx", nn.BatchNorm2d(3), {"Dropout"}),
    ("pt2", nn.BatchNorm2d(3), {"aten.batch_norm.default", "aten.dropout.default"}),
    ("torchscript", nn.BatchNorm2d(3), {"aten::batch_norm", "aten::dropout"}),
    ("torchscript", nn.BatchNorm2d(3, track_running_stats=False), {"aten::dropout"}),
]


@pytest.mark.parametrize(("writer", "norm", "operators"), LIVE)
def test_train_mode_shows(tmp_path: Path, writer: str, norm: nn.Module, operators: set[str]) -> None:
    inspection = inspect_artifact(written(writer, Trained(norm).train(), (torch.randn(2, 1, 5, 5),), tmp_path))
    assert {node.operator for node in inspection.nodes if node.training} == operators


@pytest.mark.sample(6)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("tracks", [True, False], ids=["running statistics", "the batch's statistics"])
def test_eval_mode_does_not(tmp_path: Path, writer: str, tracks: bool) -> None:
    module = Trained(nn.BatchNorm2d(3, track_running_stats=tracks)).eval()
    inspection = inspect_artifact(written(writer, module, (torch.randn(2, 1, 5, 5),), tmp_path))
    assert not [node for node in (*inspection.nodes, *inspection.bodies) if node.training]


def test_external_data_is_named_and_read(tmp_path: Path) -> None:
    module = nn.Linear(40, 40).eval()
    with torch.no_grad():
        torch.onnx.export(module, (torch.ones(1, 40),), tmp_path / "m.onnx", external_data=True, verbose=False)
    inspection = inspect_artifact(tmp_path / "m.onnx")
    assert inspection.external == ("m.onnx.data",)
    assert torch.equal(inspection.constants["weight"], module.weight)


def test_constants_of_every_dtype(tmp_path: Path) -> None:
    tensors = [
        torch.tensor([1.5, -0.0, float("nan")]).to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    ] + [torch.tensor([1, 0, 1]).to(dtype) for dtype in (torch.bool, torch.uint8, torch.int8, torch.int32)]
    held = [onnx.numpy_helper.from_array(t.numpy(), f"w{i}") for i, t in enumerate(tensors) if i != 3]
    brain = onnx.TensorProto(name="w3", data_type=onnx.TensorProto.BFLOAT16, dims=[3])
    brain.raw_data = tensors[3].view(torch.int16).numpy().tobytes()
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", None])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y], [*held, brain])), tmp_path / "m.onnx"
    )
    inspection = inspect_artifact(tmp_path / "m.onnx")
    for i, tensor in enumerate(tensors):
        found = inspection.constants[f"w{i}"]
        assert found.dtype == tensor.dtype and torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))
    assert [str(spec) for spec in (*inspection.inputs, *inspection.outputs)] == ["x: float32[n, ?]", "y: float32[...]"]


@pytest.mark.parametrize("writer", ["pt2", "torchscript"])
def test_a_device_in_the_graph_is_named(tmp_path: Path, writer: str) -> None:
    class Placed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.zeros(1, device=torch.device("cpu"))

    assert inspect_artifact(written(writer, Placed(), (torch.ones(2),), tmp_path)).devices == {"cpu"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_file_is_a_parity_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"no artifact")
    with pytest.raises(ParityError, match=f"m{suffix} cannot be inspected"):
        inspect_artifact(path)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no artifact at"):
        inspect_artifact(tmp_path / "m.onnx")


def test_every_format_can_be_looked_into() -> None:
    assert all(entry.inspect is not None for entry in FORMATS.values())


@pytest.mark.parametrize("format", FORMATS)
def test_none_of_it_travels(format: str) -> None:
    assert not [name for name in travelling_files(format) if "inspection" in name or name.endswith("inspect.py")]


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        ('File "/home/me/net.py", line 12, in forward\n  y', "net.py:12"),
        ('File "/a/b.py", line 1, in f\nFile "/v/lib/site-packages/torch/nn/modules/conv.py", line 5, in g', "b.py:1"),
        ('File "C:\\me\\net.py", line 3, in forward', "net.py:3"),
        ('File "/v/site-packages/deploypipe/models/images.py", line 25, in forward', "images.py:25"),
        ('File "/x/deploypipe/staging/copies.py", line 58, in forward', ""),
        ("", ""),
    ],
)
def test_the_authors_line(trace: str, line: str) -> None:
    assert author_line(trace) == line
