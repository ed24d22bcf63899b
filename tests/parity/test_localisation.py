"""For each mutant of one operator: is it the one that is named, with the author's line?"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor, nn

import deploypipe
from deploypipe.formats.inspection import Inspection
from deploypipe.formats.reading import inspect_artifact
from deploypipe.models.dynamic import DynamicBranch, DynamicDepth
from deploypipe.parity.localisation import locate
from deploypipe.parity.verdict import Culprit

HERE = Path(__file__)


def line(text: str) -> str:
    """The source of the one line here that ends with this comment."""
    found = [i for i, row in enumerate(HERE.read_text().splitlines(), 1) if row.endswith(f"# {text}")]
    assert len(found) == 1, (text, found)
    return f"{HERE.name}:{found[0]}"


class Net(nn.Module):
    """One of each operator that has something to get wrong. `x`: float32 [n, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.LayerNorm(16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x - 0.3  # sub
        x = x / 0.7  # div
        x = self.first(x)  # first
        x = F.leaky_relu(x, 0.1)  # leaky
        x = self.pool(x)  # pool
        y = torch.relu(self.second(x))  # second
        y = torch.clamp(y + x, -0.4, 0.4)  # clamp
        y = torch.cat([x, y], dim=1)  # cat
        y = y[:, 1:5] * y.mean(dim=(1, 2), keepdim=True)  # mean
        y = y.permute(0, 1, 3, 2)  # permute
        y = self.norm(y.flatten(2))  # norm
        weights = torch.softmax(self.mix(y), dim=-1)  # softmax
        y = F.gelu(weights * y)  # gelu
        return self.head(y.flatten(1))  # head


class Scores(nn.Module):
    """Another one, of matrix products. `x`: float32 [n, 4, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query = self.query(x).transpose(1, 2)  # transpose
        scores = torch.softmax(query @ self.key(x), dim=-1)  # scores
        pooled = x.sum(dim=1)  # sum
        return scores, pooled


def built(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
        if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(part.bias, -1, 1)
    return module.eval()


torch.manual_seed(0)  # whatever other files drew when they were collected
NET, SCORES = built(Net()), built(Scores())
IMAGES, ROWS = torch.rand(3, 1, 8, 8), torch.randn(3, 4, 4)
INPUTS: dict[nn.Module, tuple[Tensor, ...]] = {NET: (IMAGES,), SCORES: (ROWS,)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[nn.Module, str], Path]:
    """The artifact of a module in a format, exported once."""
    folder = tmp_path_factory.mktemp("localisation")
    made: dict[tuple[int, str], Path] = {}

    def write(module: nn.Module, format: str) -> Path:
        path = made.get((id(module), format))
        if path is None:
            path = folder / f"{len(made)}{ {'onnx': '.onnx', 'pt2': '.pt2', 'torchscript': '.pt'}[format] }"
            deploypipe.export(module, INPUTS[module], format=format, path=path)
            made[id(module), format] = path
        return path

    return write


# ---- ONNX


def node_of(model: onnx.ModelProto, operator: str, index: int = 0) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == operator][index]


def attribute(operator: str, name: str, value: Any, index: int = 0) -> Callable[[onnx.ModelProto], str]:
    def mutate(model: onnx.ModelProto) -> str:
        node = node_of(model, operator, index)
        kept = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])
        return node.name

    return mutate


def becomes(operator: str, other: str, index: int = 0) -> Callable[[onnx.ModelProto], str]:
    def mutate(model: onnx.ModelProto) -> str:
        node = node_of(model, operator, index)
        node.op_type = other
        del node.attribute[:]
        return node.name

    return mutate


def constant(operator: str, position: int, change: Callable[[Any], Any], index: int = 0) -> Callable[..., str]:
    """Another value for an input that is a weight or a constant."""

    def mutate(model: onnx.ModelProto) -> str:
        node = node_of(model, operator, index)
        (held,) = [item for item in model.graph.initializer if item.name == node.input[position]]
        array = numpy_helper.to_array(held)
        node.input[position] = f"{held.name}_changed"
        model.graph.initializer.append(
            numpy_helper.from_array(np.asarray(change(array.copy()), array.dtype), node.input[position])
        )
        return node.name

    return mutate


def removed(operator: str, index: int = 0) -> Callable[[onnx.ModelProto], str]:
    """Its readers read what it read; the first of them is the first to depart."""

    def mutate(model: onnx.ModelProto) -> str:
        node = node_of(model, operator, index)
        readers = [other for other in model.graph.node if node.output[0] in other.input]
        for reader in readers:
            for position, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[position] = node.input[0]
        model.graph.node.remove(node)
        return readers[0].name

    return mutate


def one_weight(array: Any) -> Any:
    array.flat[np.abs(array).argmax()] *= 1.001
    return array


def rows_swapped(array: Any) -> Any:
    array[[0, 1]] = array[[1, 0]]
    return array


def dilated(model: onnx.ModelProto) -> str:
    attribute("Conv", "pads", [2, 2, 2, 2])(model)
    return attribute("Conv", "dilations", [2, 2])(model)


def later_slice(model: onnx.ModelProto) -> str:
    constant("Slice", 1, lambda start: start + 1)(model)
    return constant("Slice", 2, lambda end: end + 1)(model)


def reversed_inputs(operator: str) -> Callable[[onnx.ModelProto], str]:
    def mutate(model: onnx.ModelProto) -> str:
        node = node_of(model, operator)
        names = list(node.input)
        del node.input[:]
        node.input.extend(names[::-1])
        return node.name

    return mutate


ONNX_MUTANTS: dict[str, tuple[nn.Module, Callable[[onnx.ModelProto], str], str, str, str]] = {
    # what is changed, the module, how; the author's line, the submodule, eager's operator
    "Sub constant": (NET, constant("Sub", 1, lambda a: a * 1.01), "sub", "", "sub"),
    "Sub to Add": (NET, becomes("Sub", "Add"), "sub", "", "sub"),
    "Sub removed": (NET, removed("Sub"), "sub", "", "sub"),
    "Div constant": (NET, constant("Div", 1, lambda a: a * 1.01), "div", "", "div"),
    "Conv pads": (NET, attribute("Conv", "pads", [0, 0, 2, 2]), "first", "first.0", "convolution"),
    "Conv dilations": (NET, dilated, "first", "first.0", "convolution"),
    "Conv one weight": (NET, constant("Conv", 1, one_weight), "first", "first.0", "convolution"),
    "Conv rows swapped": (NET, constant("Conv", 1, rows_swapped, 1), "second", "second", "convolution"),
    "Conv bias zeroed": (NET, constant("Conv", 2, lambda a: a * 0, 1), "second", "second", "convolution"),
    "LeakyRelu alpha": (NET, attribute("LeakyRelu", "alpha", 0.2), "leaky", "", "leaky_relu"),
    "LeakyRelu to Sigmoid": (NET, becomes("LeakyRelu", "Sigmoid"), "leaky", "", "leaky_relu"),
    "LeakyRelu slope 1": (NET, attribute("LeakyRelu", "alpha", 1.0), "leaky", "", "leaky_relu"),
    "LeakyRelu removed": (NET, removed("LeakyRelu"), "leaky", "", "leaky_relu"),
    "MaxPool kernel": (NET, attribute("MaxPool", "kernel_shape", [1, 1]), "pool", "pool", "max_pool2d_with_indices"),
    "Add to Sub": (NET, becomes("Add", "Sub"), "clamp", "", "add"),
    "Relu to Sigmoid": (NET, becomes("Relu", "Sigmoid"), "second", "", "relu"),
    "Clip bounds": (NET, constant("Clip", 2, lambda a: a * 0.5), "clamp", "", "clamp"),
    "Concat order": (NET, reversed_inputs("Concat"), "cat", "", "cat"),
    "Slice start": (NET, later_slice, "mean", "", "slice"),
    "Mul to Add": (NET, becomes("Mul", "Add"), "mean", "", "mul"),
    "ReduceMean axes": (NET, constant("ReduceMean", 1, lambda a: [1, 3]), "mean", "", "mean"),
    "Transpose perm": (NET, attribute("Transpose", "perm", [0, 1, 2, 3]), "permute", "", "permute"),
    "LayerNorm epsilon": (NET, attribute("LayerNormalization", "epsilon", 1e-2), "norm", "norm", "native_layer_norm"),
    "LayerNorm weight": (NET, constant("LayerNormalization", 1, one_weight), "norm", "norm", "native_layer_norm"),
    "Softmax axis": (NET, attribute("Softmax", "axis", 1), "softmax", "", "_softmax"),
    "Gelu tanh": (NET, attribute("Gelu", "approximate", "tanh"), "gelu", "", "gelu"),
    "Gemm alpha": (NET, attribute("Gemm", "alpha", 1.01), "head", "head", "addmm"),
    "Gemm beta": (NET, attribute("Gemm", "beta", 0.9), "head", "head", "addmm"),
    "Gemm one weight": (NET, constant("Gemm", 1, one_weight), "head", "head", "addmm"),
    "Gemm half weights": (NET, constant("Gemm", 1, lambda a: a.astype(np.float16)), "head", "head", "addmm"),
    "Transpose to no other": (SCORES, attribute("Transpose", "perm", [0, 1, 2]), "transpose", "", "transpose"),
    "Scores axis": (SCORES, attribute("Softmax", "axis", 1), "scores", "", "_softmax"),
    "ReduceSum axes": (SCORES, constant("ReduceSum", 1, lambda a: [2]), "sum", "", "sum"),
}  # fmt: skip


@pytest.mark.parametrize(("module", "mutate", "source", "part", "eager"), ONNX_MUTANTS.values(), ids=ONNX_MUTANTS)
def test_onnx_mutants(
    module: nn.Module,
    mutate: Callable[[onnx.ModelProto], str],
    source: str,
    part: str,
    eager: str,
    written: Callable[[nn.Module, str], Path],
    tmp_path: Path,
) -> None:
    model = onnx.load(written(module, "onnx"))
    name = mutate(model)
    onnx.save(model, tmp_path / "mutant.onnx")
    culprit = located(module, tmp_path / "mutant.onnx")
    assert (culprit.node, culprit.source, culprit.module) == (name, line(source), part)
    assert culprit.eager.split(".")[1] == eager


# ---- pt2


def fx_node(program: torch.export.ExportedProgram, operator: str, index: int = 0) -> torch.fx.Node:
    found = [n for n in program.graph.nodes if n.op == "call_function" and f".{operator}." in f"{n.target}"]
    return found[index]


def argument(operator: str, position: int, value: Any, index: int = 0) -> Callable[..., str]:
    def mutate(program: torch.export.ExportedProgram) -> str:
        node = fx_node(program, operator, index)
        filled = [*node.args, *(a.default_value for a in node.target._schema.arguments[len(node.args) :])]
        filled[position] = value
        node.args, node.kwargs = tuple(filled[: max(position + 1, len(node.args))]), {}
        return str(node.name)

    return mutate


def instead(operator: str, target: Any, index: int = 0) -> Callable[..., str]:
    def mutate(program: torch.export.ExportedProgram) -> str:
        node = fx_node(program, operator, index)
        node.target = target
        node.args = node.args[: len(target._schema.arguments)]
        return str(node.name)

    return mutate


def gone(operator: str, index: int = 0) -> Callable[..., str]:
    def mutate(program: torch.export.ExportedProgram) -> str:
        node = fx_node(program, operator, index)
        reader = next(iter(node.users))
        node.replace_all_uses_with(node.args[0])
        program.graph.erase_node(node)
        return str(reader.name)

    return mutate


def weight(name: str, change: Callable[[Tensor], Any], operator: str, index: int = 0) -> Callable[..., str]:
    def mutate(program: torch.export.ExportedProgram) -> str:
        tensor = program.state_dict[name].data
        change(tensor)
        return str(fx_node(program, operator, index).name)

    return mutate


aten = torch.ops.aten
PT2_MUTANTS: dict[str, tuple[nn.Module, Callable[..., str], str, str, str]] = {
    "sub constant": (NET, argument("sub", 1, 0.31), "sub", "", "sub"),
    "sub gone": (NET, gone("sub"), "sub", "", "sub"),
    "sub to add": (NET, instead("sub", aten.add.Tensor), "sub", "", "sub"),
    "conv padding": (NET, lambda p: (argument("conv2d", 4, [0, 0])(p), argument("conv2d", 4, [2, 2])(p),
                                     argument("conv2d", 5, [2, 2])(p))[2], "first", "first.0", "convolution"),
    "conv one weight": (NET, weight("second.weight", lambda w: w[0, 0, 0].mul_(1.01), "conv2d", 1),
                        "second", "second", "convolution"),
    "conv bias zeroed": (NET, weight("second.bias", Tensor.zero_, "conv2d", 1), "second", "second", "convolution"),
    "batch_norm epsilon": (NET, argument("batch_norm", 7, 1e-2), "first", "first.1", "native_batch_norm"),
    "leaky_relu slope": (NET, argument("leaky_relu", 1, 0.2), "leaky", "", "leaky_relu"),
    "leaky_relu to sigmoid": (NET, instead("leaky_relu", aten.sigmoid.default), "leaky", "", "leaky_relu"),
    "relu gone": (NET, gone("relu"), "second", "", "relu"),
    "clamp bounds": (NET, argument("clamp", 2, 0.2), "clamp", "", "clamp"),
    "max_pool stride": (NET, lambda p: (argument("max_pool2d", 1, [3, 3])(p), argument("max_pool2d", 3, [1, 1])(p))[0],
                        "pool", "pool", "max_pool2d_with_indices"),
    "mean axes": (NET, argument("mean", 1, [1, 3]), "mean", "", "mean"),
    "permute": (NET, argument("permute", 1, [0, 1, 2, 3]), "permute", "", "permute"),
    "layer_norm epsilon": (NET, argument("layer_norm", 4, 1e-2), "norm", "norm", "native_layer_norm"),
    "softmax axis": (NET, argument("softmax", 1, 1), "softmax", "", "_softmax"),
    "gelu tanh": (NET, lambda p: (setattr(fx_node(p, "gelu"), "kwargs", {"approximate": "tanh"}),
                                  fx_node(p, "gelu").name)[1], "gelu", "", "gelu"),
    "linear one weight": (NET, weight("mix.weight", lambda w: w[0, 0].mul_(1.01), "linear"), "softmax", "mix", "addmm"),
    "linear bias": (NET, weight("head.bias", lambda w: w.mul_(1.01), "linear", 1), "head", "head", "addmm"),
    "transpose": (SCORES, argument("transpose", 2, 1), "transpose", "", "transpose"),
    "scores axis": (SCORES, argument("softmax", 1, 1), "scores", "", "_softmax"),
    "sum axes": (SCORES, argument("sum", 1, [2]), "sum", "", "sum"),
}  # fmt: skip


@pytest.mark.sample(8)
@pytest.mark.parametrize(("module", "mutate", "source", "part", "eager"), PT2_MUTANTS.values(), ids=PT2_MUTANTS)
def test_pt2_mutants(
    module: nn.Module,
    mutate: Callable[..., str],
    source: str,
    part: str,
    eager: str,
    written: Callable[[nn.Module, str], Path],
    tmp_path: Path,
) -> None:
    program = torch.export.load(written(module, "pt2"))
    name = mutate(program)
    program.graph_module.recompile()
    torch.export.save(program, tmp_path / "mutant.pt2")
    culprit = located(module, tmp_path / "mutant.pt2")
    assert (culprit.node, culprit.source, culprit.module) == (name, line(source), part)
    assert culprit.eager.split(".")[1] == eager


# ---- TorchScript: a mutated module, exported


class WrongNet(Net):
    """`wrong` says which of its operators."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, x: Tensor) -> Tensor:
        w = self.wrong
        if w != "sub gone":
            x = x - (0.31 if w == "sub constant" else 0.3)
        x = x / 0.7
        x = self.first(x)
        x = torch.sigmoid(x) if w == "sigmoid" else F.leaky_relu(x, 0.2 if w == "leaky_relu" else 0.1)
        x = self.pool(x)
        y = torch.relu(self.second(x))
        y = torch.clamp(y - x if w == "add" else y + x, -0.4, 0.2 if w == "clamp" else 0.4)
        y = torch.cat([x, y], dim=1)
        y = y[:, 1:5] * y.mean(dim=(1, 3) if w == "mean" else (1, 2), keepdim=True)
        y = y.permute(0, 1, 2, 3) if w == "permute" else y.permute(0, 1, 3, 2)
        y = self.norm(y.flatten(2))
        weights = torch.softmax(self.mix(y), dim=1 if w == "softmax" else -1)
        y = F.gelu(weights * y, approximate="tanh" if w == "gelu" else "none")
        return self.head(y.flatten(1))


def wrong_weights(module: nn.Module) -> None:
    module.get_parameter("second.weight").data[0, 0, 0] *= 1.01


def wrong_norm(module: nn.Module) -> None:
    module.get_submodule("norm").eps = 1e-2


def wrong_dilation(module: nn.Module) -> None:
    conv = module.get_submodule("first.0")
    conv.padding, conv.dilation = (2, 2), (2, 2)


SCRIPT_MUTANTS: dict[str, tuple[str | Callable[[nn.Module], None], str, str, str, str]] = {
    "sub constant": ("sub constant", "aten::sub", "sub", "", "sub"),
    "sub gone": ("sub gone", "aten::div", "sub", "", "sub"),
    "sigmoid": ("sigmoid", "aten::sigmoid", "leaky", "", "leaky_relu"),
    "leaky_relu": ("leaky_relu", "aten::leaky_relu", "leaky", "", "leaky_relu"),
    "add": ("add", "aten::sub", "clamp", "", "add"),
    "clamp": ("clamp", "aten::clamp", "clamp", "", "clamp"),
    "mean": ("mean", "aten::mean", "mean", "", "mean"),
    "permute": ("permute", "aten::permute", "permute", "", "permute"),
    "softmax": ("softmax", "aten::softmax", "softmax", "", "_softmax"),
    "gelu": ("gelu", "aten::gelu", "gelu", "", "gelu"),
    "weights": (wrong_weights, "aten::conv2d", "second", "second", "convolution"),
    "layer_norm": (wrong_norm, "aten::layer_norm", "norm", "norm", "native_layer_norm"),
    "dilation": (wrong_dilation, "aten::conv2d", "first", "first.0", "convolution"),
}


@pytest.mark.parametrize(("wrong", "operator", "source", "part", "eager"), SCRIPT_MUTANTS.values(), ids=SCRIPT_MUTANTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_mutants(
    wrong: str | Callable[[nn.Module], None], operator: str, source: str, part: str, eager: str, tmp_path: Path
) -> None:
    path = tmp_path / "mutant.pt"
    if isinstance(wrong, str):
        traced = WrongNet(wrong).eval()
        traced.load_state_dict(NET.state_dict())
        torch.jit.save(torch.jit.trace(traced, IMAGES), path)
    else:
        scripted = copy.deepcopy(NET)
        wrong(scripted)
        torch.jit.save(torch.jit.script(scripted), path)
    culprit = located(NET, path)
    assert (culprit.operator, culprit.source, culprit.module) == (operator, line(source), part)
    assert culprit.eager.split(".")[1] == eager


# ---- What is not one operator's doing


class Pixels(nn.Module):
    """From pixels (uint8 [n, 1, 8, 8]) to three classes."""

    def __init__(self, mistake: str = "") -> None:
        super().__init__()
        self.mistake = mistake
        self.network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.to(torch.float32)
        if self.mistake != "not normalised":
            x = (x - (128 if self.mistake == "other constants" else 127.5)) / 127.5  # normalised
        if self.mistake == "normalised twice":
            x = (x - 127.5) / 127.5
        if self.mistake == "axes misread":
            x = x.permute(0, 1, 3, 2)
        y = self.network(x)  # network
        if self.mistake == "softmax":
            return torch.softmax(y, dim=1)
        return y[:, [1, 0, 2]] if self.mistake == "classes permuted" else y


@pytest.mark.parametrize(
    ("mistake", "operator", "eager", "source"),
    [
        ("not normalised", "Conv", "sub", "normalised"),
        ("other constants", "Sub", "sub", "normalised"),
        ("normalised twice", "Sub", "convolution", "network"),
        ("axes misread", "Transpose", "convolution", "network"),
        ("softmax", "Softmax", "", "network"),
        ("classes permuted", "Gather", "", "network"),
    ],
)
def test_mistakes_around_a_network(mistake: str, operator: str, eager: str, source: str, tmp_path: Path) -> None:
    module, other = built(Pixels()), built(Pixels(mistake))
    pixels = (torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8),)
    culprit = located(module, exported(other, pixels, tmp_path), pixels)
    assert (culprit.operator, culprit.source) == (operator, line(source))
    assert culprit.eager.split(".")[1:2] == ([eager] if eager else [])


def exported(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Path:
    """As anybody would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(module.eval(), inputs, folder / "other.onnx", dynamo=False)  # which takes no time
    return folder / "other.onnx"


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


X = torch.linspace(-1, 2, 20).reshape(2, 10)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2  # above
        return x + 1  # below


@pytest.mark.parametrize(
    ("frozen", "inputs", "source"), [(lambda x: x * 2, -X, "below"), (lambda x: x + 1, X, "above")]
)
def test_a_frozen_branch(frozen: Callable[..., Any], inputs: Tensor, source: str, tmp_path: Path) -> None:
    culprit = located(Branch(), exported(Lambda(frozen), (X,), tmp_path), (inputs,))
    assert (culprit.operator, culprit.source) == ("Mul" if source == "below" else "Add", line(source))


class Repeated(nn.Module):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.layer, self.times = nn.Linear(10, 10), times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = torch.tanh(self.layer(x))  # turn
        return x


@pytest.mark.parametrize(("unrolled", "due", "operator", "eager"), [(2, 4, "Tanh", "addmm"), (4, 2, "Gemm", "")])
def test_an_unrolled_loop(unrolled: int, due: int, operator: str, eager: str, tmp_path: Path) -> None:
    culprit = located(built(Repeated(due)), exported(built(Repeated(unrolled)), (X,), tmp_path), (X,))
    assert (culprit.operator, culprit.source) == (operator, line("turn"))
    assert culprit.eager.split(".")[1:2] == ([eager] if eager else [])


def both(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.relu(x), torch.sigmoid(x)  # both


def test_outputs_in_another_order(tmp_path: Path) -> None:
    culprit = located(Lambda(both), exported(Lambda(lambda x: both(x)[::-1]), (X,), tmp_path), (X,))
    assert (culprit.operator, culprit.eager.split(".")[1], culprit.source) == ("Sigmoid", "relu", line("both"))


def branch_body(model: onnx.ModelProto) -> onnx.NodeProto:
    branches = [item.g for item in node_of(model, "If").attribute]
    return next(node for graph in branches for node in graph.node if node.op_type == "Mul")


def wrong_body(model: onnx.ModelProto) -> None:
    branch_body(model).op_type = "Sub"


def wrong_condition(model: onnx.ModelProto) -> None:
    node_of(model, "Greater").op_type = "Less"


def wrong_layer(model: onnx.ModelProto) -> None:
    (held,) = [item for item in model.graph.initializer if item.name == "layer.weight"]
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) * np.float32(1.01), held.name))


@pytest.mark.parametrize(
    ("module", "inputs", "mutate", "operator", "written_as"),
    [
        (DynamicBranch(), (X,), wrong_body, "If", "return x * 2"),
        (DynamicBranch(), (X,), wrong_condition, "Less", "if x.sum() > 0"),
        (DynamicDepth(), (X, torch.tensor(3)), wrong_layer, "Loop", "x = torch.relu(self.layer(x))"),
    ],
    ids=["in a branch", "the condition", "in a loop"],
)
def test_control_flow(
    module: nn.Module, inputs: tuple[Tensor, ...], mutate: Callable[..., None], operator: str, written_as: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    built(module)
    path = tmp_path / "dynamic.onnx"
    deploypipe.export(module, inputs, format="onnx", path=path)
    model = onnx.load(path)
    mutate(model)
    onnx.save(model, path)
    culprit = located(module, path, inputs)
    file, number = culprit.source.split(":")
    row = (Path(deploypipe.__file__).parent / "models" / file).read_text().splitlines()[int(number) - 1]
    assert culprit.operator == operator and written_as in row


# ---- What is no departure


@pytest.mark.parametrize("format", ["onnx", "pt2", "torchscript"])
@pytest.mark.parametrize("module", [NET, SCORES], ids=["net", "scores"])
def test_nothing_is_named_where_all_agrees(
    module: nn.Module, format: str, written: Callable[[nn.Module, str], Path]
) -> None:
    path = written(module, format)
    assert locate(module, inspect_artifact(path), INPUTS[module]) is None


class Fails(Inspection):
    inputs = outputs = returned = nodes = ()

    def values(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        raise RuntimeError("it does not run")


@pytest.mark.parametrize("module", [NET, Lambda(lambda x: 1 / 0)], ids=["the artifact fails", "eager fails"])
def test_what_cannot_be_located_is_none(module: nn.Module) -> None:
    assert locate(module, Fails(), (IMAGES,)) is None


class Counts(nn.Module):
    """Changes itself, works in place, draws random numbers, returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        x[:, 0] = 0
        x.mul_(2).add_(self.calls)
        return {"b": torch.relu(x), "a": F.dropout(x, training=self.training) + torch.rand(1) * 0}


def test_neither_module_nor_inputs_are_touched(tmp_path: Path) -> None:
    module = Counts()
    inputs, before, state = X.clone(), X.clone(), torch.get_rng_state()
    path = exported(Lambda(lambda x: (torch.relu(x), x)), (X,), tmp_path)
    torch.set_rng_state(state)
    culprit = located(module, path, (inputs,))
    assert culprit.operator == "Relu" and culprit.eager
    assert torch.equal(inputs, before) and module.training and module.get_buffer("calls") == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_the_difference_is_the_largest_at_that_place(tmp_path: Path) -> None:
    culprit = located(
        Lambda(lambda x: torch.relu(x * 2)), exported(Lambda(lambda x: torch.relu(x * 3)), (X,), tmp_path), (X,)
    )
    assert culprit.operator == "Mul" and math.isclose(culprit.difference, 2.0, rel_tol=1e-6)


def located(module: nn.Module, path: Path, inputs: tuple[Tensor, ...] | None = None) -> Culprit:
    culprit = locate(module, inspect_artifact(path), inputs or INPUTS[module])
    assert culprit is not None
    return culprit
