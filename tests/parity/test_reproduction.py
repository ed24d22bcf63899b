"""The script that a failure leaves: run as a process that knows nothing of deploypipe."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import deploypipe
from deploypipe.parity.reproduction import LARGEST_INSIDE, write_reproduction
from deploypipe.parity.verdict import Culprit

CULPRIT = Culprit("node_mul", "Mul", "scale", "net.py:12", "aten.mul.Tensor", 1.0)
X = torch.tensor([[1.0, -2.0], [3.0, 0.5]])


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def double(x: Tensor) -> Tensor:
    return x * 2


def run(script: Path, *argv: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """-I: neither the current folder nor PYTHONPATH is searched, so that only what is installed can be imported."""
    code = (
        "import runpy, sys; sys.modules['deploypipe'] = None; "
        f"sys.argv = [{str(script)!r}, *sys.argv[1:]]; runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", code, *map(str, argv)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def write(folder: Path, artifact: Path, expected: list[Tensor], inputs: tuple[Tensor, ...] = (X,), names: str = "y",
          culprit: Culprit | None = CULPRIT) -> Path:  # fmt: skip
    script = folder / "reproduce.py"
    tolerances = [(1e-5, 1e-4) if tensor.is_floating_point() else (0.0, 0.0) for tensor in expected]
    write_reproduction(script, artifact, inputs, expected, names.split(), tolerances, culprit)
    return script


SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".pt"}


@pytest.mark.sample(1)
@pytest.mark.parametrize("format", SUFFIXES)
def test_the_script_shows_the_difference(format: str, tmp_path: Path) -> None:
    artifact = tmp_path / "made" / f"model{SUFFIXES[format]}"
    deploypipe.export(Lambda(double).eval(), (X,), format=format, path=artifact)
    (tmp_path / "report").mkdir()
    script = write(tmp_path / "report", artifact, [X * 2 + torch.tensor([[0, 0], [0.25, 0]])])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for folder in ("made", "report"):  # the artifact is found from where the script lies
        (tmp_path / folder).rename(moved / folder)
    result = run(moved / "report" / "reproduce.py", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert result.stdout.splitlines() == [
        "y: DIFFERS, 1 of 4 values differ",
        "  worst element [1, 0]: artifact 6.0, eager 6.25",
        "  largest difference 0.25, allowed 1e-05 + 0.0001 * |eager|",
    ]
    text = (moved / "report" / script.name).read_text()
    assert "node 'node_mul' (Mul) in scale at net.py:12" in text.split('"""')[1]


def test_without_a_difference_the_script_ends_with_0(tmp_path: Path) -> None:
    artifact = tmp_path / "model.pt2"
    deploypipe.export(Lambda(double).eval(), (X,), format="pt2", path=artifact)
    other = tmp_path / "other.pt2"
    deploypipe.export(Lambda(lambda x: x * 3).eval(), (X,), format="pt2", path=other)
    script = write(tmp_path, artifact, [X * 2], culprit=None)
    good, bad = run(script), run(script, other)
    assert (good.returncode, bad.returncode) == (0, 1), good.stderr + bad.stderr
    assert good.stdout.startswith("y: agrees, 0 of 4 values differ") and "DIFFERS, 4 of 4" in bad.stdout


def identity(folder: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> Path:
    """An ONNX file that returns its input."""
    kind = {torch.bool: TensorProto.BOOL, torch.bfloat16: TensorProto.BFLOAT16, torch.int64: TensorProto.INT64,
            torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16}[dtype]  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


INF, NAN = float("inf"), float("nan")
VALUES = {
    "bfloat16": (torch.tensor([1.5, -2.0]).bfloat16(), torch.tensor([1.5, -2.5]).bfloat16()),
    "float16": (torch.tensor([1.5, -2.0]).half(), torch.tensor([1.5, -2.5]).half()),
    "bool": (torch.tensor([True, False]), torch.tensor([True, True])),
    "a number": (torch.tensor(1.5), torch.tensor(2.5)),
    "no values": (torch.zeros(0, 2), torch.zeros(0, 3)),
    "NaN": (torch.tensor([NAN, 1.0]), torch.tensor([1.0, 1.0])),
    "infinities": (torch.tensor([INF, -INF]), torch.tensor([INF, INF])),
    "infinity for a number": (torch.tensor([1.0, -INF]), torch.tensor([INF, -INF])),
    "large whole numbers": (torch.tensor([2**60 + 1]), torch.tensor([2**60])),
    "dtype": (torch.tensor([1.0]), torch.tensor([1])),
}


@pytest.mark.parametrize(("value", "other"), VALUES.values(), ids=VALUES)
def test_every_kind_of_value(value: Tensor, other: Tensor, tmp_path: Path) -> None:
    artifact = identity(tmp_path, value.dtype, tuple(value.shape))
    assert verdict(write(tmp_path, artifact, [value], (value,))) == 0
    assert verdict(write(tmp_path, artifact, [other], (value,))) == 1


def verdict(script: Path) -> int:
    """Of the script, in this process: starting one takes longer than all it does."""
    space = {"__name__": "reproduce", "__file__": str(script)}
    exec(compile(script.read_text(), script, "exec"), space)
    return int(space["main"]([]))  # type: ignore[operator]


def test_several_outputs_with_dicts_in_the_order_of_their_names(tmp_path: Path) -> None:
    artifact = tmp_path / "model.onnx"
    module = Lambda(lambda x: {"b": x * 2, "a": x + 1}).eval()
    deploypipe.export(module, (X,), format="onnx", path=artifact)
    assert verdict(write(tmp_path, artifact, [X + 1, X * 2], names="a b")) == 0
    assert verdict(write(tmp_path, artifact, [X * 2, X + 1], names="a b")) == 1


def test_an_output_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = identity(tmp_path, torch.float32, (2, 2))
    assert verdict(write(tmp_path, artifact, [X, X], names="a b")) == 1
    assert "artifact returns 1 tensors, eager 2" in capsys.readouterr().out


def test_large_data_lie_beside_the_script(tmp_path: Path) -> None:
    large = torch.randn(LARGEST_INSIDE // 3)
    artifact = identity(tmp_path, torch.float32, tuple(large.shape))
    script = write(tmp_path, artifact, [large], (large,))
    assert script.stat().st_size < 10_000 and (tmp_path / "reproduce.npz").is_file()
    assert verdict(script) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "reproduce.py", "reproduce.npz"}
    write(tmp_path, identity(tmp_path, torch.float32, (2, 2)), [X])
    assert not (tmp_path / "reproduce.npz").exists()


def test_the_script_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    artifact = identity(tmp_path, torch.float32, (2, 2))
    script = write(tmp_path, artifact, [X])
    before = script.read_text()
    with pytest.raises(ValueError, match="zip"):
        write(tmp_path, artifact, [X], names="one too many")
    assert script.read_text() == before and len(list(tmp_path.iterdir())) == 2


def test_names_cannot_break_the_script(tmp_path: Path) -> None:
    artifact = identity(tmp_path, torch.float32, (2, 2))
    odd = Culprit('"""\\', "Mul", "@inputs", "\\N", "", 0.0)
    assert verdict(write(tmp_path, artifact, [X], names='@expected"""\\', culprit=odd)) == 0
