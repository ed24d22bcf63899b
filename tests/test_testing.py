"""The gate in tests of one's own, on files that other tools wrote."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import clean_environment
from torch import Tensor, nn

from deploypipe.errors import UsageError
from deploypipe.testing import assert_same

X = torch.linspace(-1, 1, 12).reshape(4, 3)
BATCH = torch.export.Dim("batch")


class Net(nn.Module):
    """Its outputs are a dict that is not in the order of its names, and nested."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Linear(3, 40), nn.BatchNorm1d(40)

    def forward(self, x: Tensor, scale: float = 2.0) -> Any:
        hidden = self.norm(self.layer(x))
        return {"z": hidden, "a": [hidden.softmax(-1) * scale, hidden.sum(1)]}


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(a), a - b


def onnx(module: nn.Module, args: tuple[Tensor, ...], path: Path, external: bool) -> None:
    axes = tuple({0: BATCH} for _ in args)
    torch.onnx.export(module, args, str(path), dynamo=True, external_data=external, dynamic_shapes=axes, verbose=False)


def pt2(module: nn.Module, args: tuple[Tensor, ...], path: Path) -> None:
    torch.export.save(torch.export.export(module, args, dynamic_shapes=tuple({0: BATCH} for _ in args)), path)


def traced(module: nn.Module, args: tuple[Tensor, ...], path: Path) -> None:
    torch.jit.save(torch.jit.trace(module, args), path)


def scripted(module: nn.Module, args: tuple[Tensor, ...], path: Path) -> None:
    torch.jit.save(torch.jit.freeze(torch.jit.script(module)), path)


FILES: dict[str, tuple[type[nn.Module], tuple[Tensor, ...], str, Callable[..., None], dict[str, Any]]] = {
    "onnx": (Net, (X,), "net.onnx", onnx, {"external": False}),
    "onnx, external data": (Net, (X,), "net.onnx", onnx, {"external": True}),
    "pt2": (Net, (X,), "net.pt2", pt2, {}),
    "traced": (Pair, (X, X + 1), "net.pt", traced, {}),
    "scripted and frozen": (Pair, (X, X + 1), "net.pt", scripted, {}),
}


@pytest.mark.sample(2)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("network", "args", "name", "write", "options"), FILES.values(), ids=FILES)
def test_a_file_of_any_tool(
    network: type[nn.Module], args: Any, name: str, write: Callable[..., None], options: Any, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(network().eval(), args, path, **options)
    assert path.with_name("net.onnx.data").exists() == options.get("external", False)
    dynamic = {"a": {0: "n"}, "b": {0: "n"}} if network is Pair else None
    report = assert_same(network(), path, args, dynamic=dynamic)
    assert {outcome.shapes.partition(" ")[0] for outcome in report.outcomes} >= {"1x3", "4x3", "257x3"}
    other = network()
    with torch.no_grad():
        other.layer.bias += 0.01
    with pytest.raises(AssertionError, match=r"net\.\w+ differs from the eager model: .*output") as caught:
        assert_same(other, path, args, dynamic=dynamic)
    assert "\n" not in str(caught.value)


def test_what_it_is_compared_on_and_how_far_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    pt2(Net().eval(), (X,), path)
    report = assert_same(Net(), path, X, {"scale": 2.0})
    assert len(report.outcomes) > 30
    report = assert_same(Net(), path, probes=[(X[:2],)])
    assert {outcome.shapes for outcome in report.outcomes} == {"2x3"}
    other = Net()
    with torch.no_grad():
        other.layer.bias += 1e-4
    with pytest.raises(AssertionError):
        assert_same(other, path, probes=[(X[:2],)], atol=1e-9, rtol=1e-9)
    with pytest.raises(UsageError, match="nothing to compare on"):
        assert_same(Net(), path)


SUITE = """
import sys

heavy = "torch" in sys.modules

def test_light(): assert not heavy

def test_mine(assert_same):
    import torch
    from torch import nn
    net, x = nn.Linear(3, 2).eval(), torch.rand(4, 3)
    torch.export.save(torch.export.export(net, (x,)), "net.pt2")
    assert_same(net, "net.pt2", (x,))
    try:
        assert_same(nn.Linear(3, 2), "net.pt2", (x,))
    except AssertionError as error:
        assert "differs from the eager model" in str(error)
    else:
        raise RuntimeError("no difference was found")
"""


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("chosen", "tests"),
    [(["-m", "parity"], 1), (["-m", "not parity"], 1)],
    ids=["parity", "not parity"],
)
def test_the_plugin(chosen: list[str], tests: int, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(SUITE)
    argv = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider"]
    argv += ["-p", "deploypipe.pytest_plugin", *chosen]
    done = subprocess.run(argv, cwd=tmp_path, env=clean_environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0 and f"{tests} passed" in done.stdout, done.stdout + done.stderr
