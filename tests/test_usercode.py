import inspect
import pickle
import sys
from pathlib import Path

import pytest
import torch

from deploypipe.errors import UsageError
from deploypipe.usercode import load_example, load_module, load_probes, parse_dynamic

CODE = """
from dataclasses import dataclass
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
    def forward(self, x):
        return self.layer(x)

class Needs(nn.Module):
    def __init__(self, size): ...

def make():
    return Net()

net = Net()
inputs = (torch.zeros(2, 3),)
single = torch.zeros(2, 3)
def fresh():
    return torch.rand(2, 3), torch.rand(1)
named = {"x": torch.zeros(2, 3)}
def call():
    from deploypipe import Call
    return Call(torch.zeros(2, 3), scale=2)
number = 3
calls = [(torch.zeros(2, 3),), {"x": torch.zeros(5, 3)}]
def drawn():
    return (inputs for inputs in calls)
none = []
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "user_net.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize("name", ["Net", "make", "net"], ids=["class", "function", "instance"])
def test_modules(file: Path, name: str) -> None:
    assert load_module(f"{file}:{name}")(torch.zeros(2, 3)).shape == (2, 2)


def test_weights_drawn_at_construction_are_the_same_each_time(file: Path) -> None:
    first, second = load_module(f"{file}:Net"), load_module(f"{file}:Net")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "count", "names"),
    [("inputs", 1, []), ("single", 1, []), ("fresh", 2, []), ("named", 0, ["x"]), ("call", 1, ["scale"])],
)
def test_examples(file: Path, name: str, count: int, names: list[str]) -> None:
    call = load_example(f"{file}:{name}")
    assert len(call.args) == count and list(call.kwargs) == names


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("net.py", "not of the form file.py:name"),
        ("nowhere.py:Net", "no file nowhere.py"),
        ("{file}:Missing", "defines no 'Missing'"),
        ("{file}:number", "is a int, not an nn.Module"),
        ("{file}:Needs", "fails: TypeError"),
        ("{broken}:Net", "broken.py fails to run: ZeroDivisionError"),
    ],
    ids=["form", "no file", "no name", "no module", "arguments", "broken"],
)
def test_what_cannot_be_loaded(file: Path, reference: str, message: str) -> None:
    broken = file.with_name("broken.py")
    broken.write_text("1 / 0")
    with pytest.raises(UsageError, match=message):
        load_module(reference.format(file=file, broken=broken))


def test_an_example_that_is_no_tensor(file: Path) -> None:
    with pytest.raises(
        UsageError, match="must be a tuple of arguments, a dict of keyword arguments or a Call, not a int"
    ):
        load_example(f"{file}:number")


@pytest.mark.parametrize("name", ["calls", "drawn"], ids=["list", "function"])
def test_probes(file: Path, name: str) -> None:
    first, second = load_probes(f"{file}:{name}")
    assert len(first.args) == 1 and list(second.kwargs) == ["x"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("single", "is a Tensor, not a list of calls"),
        ("named", "is a dict, not a list of calls"),
        ("call", "is a Call, not a list of calls"),
        ("number", "is a int, not a list of calls"),
        ("none", "holds no call"),
        ("missing", "defines no 'missing'"),
    ],
)
def test_what_is_no_list_of_calls(file: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_probes(f"{file}:{name}")


def test_probe_that_is_no_call(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("calls = [(1,), 3]")
    with pytest.raises(UsageError, match=r"calls\[1\] must be a tuple of arguments"):
        load_probes(f"{path}:calls")


def test_dynamic_axes_of_nested_inputs() -> None:
    wanted = {"batch.ids": {0: "rows"}, "past[0].key": {1: "length"}}
    assert parse_dynamic(["batch.ids:0=rows", "past[0].key:1=length"]) == wanted


def test_dynamic_axes() -> None:
    assert parse_dynamic(["x:0=batch", "x:1=length", "y:0=batch"]) == {
        "x": {0: "batch", 1: "length"},
        "y": {0: "batch"},
    }


@pytest.mark.parametrize("text", ["x", "x:0", "x=batch", "x:a=batch", "x:0=7", ":0=batch"])
def test_bad_dynamic_axes(text: str) -> None:
    with pytest.raises(UsageError, match="argument:axis=symbol"):
        parse_dynamic([text])


@pytest.mark.parametrize("code", ["import sys; sys.exit(3)", "def Net(): raise SystemExit(3)"], ids=["file", "factory"])
def test_an_exit_in_the_users_file_is_an_error_of_theirs(tmp_path: Path, code: str) -> None:
    (tmp_path / "leaves.py").write_text(code)
    with pytest.raises(UsageError, match="fails.*SystemExit: 3"):
        load_module(f"{tmp_path}/leaves.py:Net")


def test_a_file_does_not_take_a_packages_place(tmp_path: Path) -> None:
    import random

    path, neighbour = tmp_path / "random.py", tmp_path / "neighbour_of_random.py"
    path.write_text(CODE + "\n@dataclass\nclass Point:\n    x: int\n\nimport json, neighbour_of_random\n")
    neighbour.write_text("value = 1")
    (tmp_path / "json.py").write_text("1 / 0")
    module = load_module(f"{path}:Net")
    assert sys.modules["random"] is random
    assert "self.layer(x)" in inspect.getsource(type(module)) and inspect.getsourcefile(type(module)) == str(path)
    assert pickle.loads(pickle.dumps(module)).layer.weight.shape == (2, 3)


def test_a_file_runs_once_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "once.py").write_text(CODE + "\nwith open('ran', 'a') as ran:\n    ran.write('x')\n")
    monkeypatch.chdir(tmp_path)
    load_module("once.py:Net")
    load_example(f"{tmp_path}/once.py:inputs")
    assert (tmp_path / "ran").read_text() == "x"


def test_a_file_that_failed_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "later.py"
    for code in ("1 / 0", "import sys; sys.exit()"):
        path.write_text(code)
        with pytest.raises(UsageError, match="fails to run"):
            load_module(f"{path}:Net")
    path.write_text(CODE)
    load_module(f"{path}:Net")
