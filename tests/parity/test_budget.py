"""What the gate may spend, what it leaves out, and that it says so."""

import math
import re

import pytest
import torch
from torch import nn

import deploypipe
from deploypipe.errors import UsageError
from deploypipe.parity.budget import LEAST, MOST, Budget, peak_of
from deploypipe.parity.verdict import SHOWN

KILO = 1024


class Chain(nn.Module):
    """Each result is freed when the next is there: two live at once."""

    def forward(self, x):
        for _ in range(5):
            x = x + 1
        return x


class Kept(nn.Module):
    def forward(self, x):
        return torch.cat([x + turn for turn in range(5)])


class Views(nn.Module):
    def forward(self, x):
        return x.reshape(-1)[2:].unsqueeze(0)


class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("module", "copies"),
    [(Chain(), 2), (Kept(), 10), (Views(), 1), (Fails(), 0)],
    ids=["freed", "kept and joined", "views", "fails"],
)
def test_peak_counts_what_is_alive_at_once(module, copies):
    # Eager gets a copy of its own, which counts once where it is watched.
    values = torch.zeros(KILO, 4)
    assert peak_of(module, (values,)) in {copies * values.nbytes, (copies + 1) * values.nbytes}


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
@pytest.mark.parametrize("name", ["seconds", "memory"])
def test_a_budget_is_an_amount(name, value):
    with pytest.raises(UsageError, match="Give a number above 0|is none"):
        Budget(**{name: value})


def test_it_follows_the_model_unless_it_is_given():
    assert Budget().seconds_for(0.0) == LEAST
    assert LEAST < Budget().seconds_for(0.5) < MOST
    assert Budget().seconds_for(100.0) == MOST
    assert Budget(3.0).seconds_for(100.0) == 3.0


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x).relu()


def test_what_has_no_room_is_left_out_and_named(tmp_path):
    path = tmp_path / "two.onnx"
    with pytest.warns(UserWarning, match=r"not compared within a budget of 0.001 s: .*A larger --budget or --memory"):
        artifact = deploypipe.export(
            Two().eval(), (torch.ones(2, 3),), format="onnx", path=path, dynamic={"x": {0: "n"}},
            budget=Budget(seconds=0.001),
        )  # fmt: skip
    left_out = artifact.parity["left_out"]
    assert len(left_out) > SHOWN
    assert any(re.match(r"\d threads?$", line) for line in left_out), left_out
    assert "example" in artifact.parity["families"]


def test_whole_budget_leaves_nothing_out(tmp_path, recwarn):
    artifact = deploypipe.export(
        Two().eval(), (torch.ones(2, 3),), format="onnx", path=tmp_path / "two.onnx", dynamic={"x": {0: "n"}},
    )  # fmt: skip
    assert "left_out" not in artifact.parity
    assert not [line for line in recwarn if "budget" in str(line.message)]


def test_other_seeds_draw_other_values(tmp_path):
    path, module = tmp_path / "two.onnx", Two()
    deploypipe.export(module, (torch.ones(2, 3),), format="onnx", path=path, dynamic={"x": {0: "n"}})

    def differences(seed):
        report = deploypipe.verify(module, path, example=(torch.ones(2, 3),), seed=seed)
        assert report.seed == seed
        return [(outcome.family, outcome.distance.mean, outcome.distance.cosine) for outcome in report.outcomes]

    assert differences(1) == differences(1)
    assert differences(1) != differences(2)
