"""A module that remembers, exported with its state as an input and an output."""

import pytest
import torch
from torch import nn

import deploypipe
from deploypipe.capture import capture
from deploypipe.errors import ExportError


class Running(nn.Module):
    """Changes one buffer in place, replaces another, and leaves a third alone."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 5)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(8), persistent=False)
        self.register_buffer("scale", torch.ones(8))

    def forward(self, x):
        self.count += 1
        self.mean = self.mean * 0.9 + 0.1 * x.mean(0)
        return self.linear((x - self.mean) * self.scale) / self.count


class Cached(nn.Module):
    """Attention to all that came before: the cache grows with each call."""

    def __init__(self):
        super().__init__()
        self.key = nn.Linear(8, 8)
        self.register_buffer("cache", torch.randn(1, 3, 8))

    def forward(self, x):
        self.cache = torch.cat([self.cache, self.key(x)], 1)
        return torch.softmax(x @ self.cache.transpose(1, 2), -1) @ self.cache


class Outer(nn.Module):
    """State of a submodule that is no buffer, written in a branch."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(8, 6)
        self.inner = nn.Module()
        self.inner.hidden = torch.zeros(2, 6)

    def forward(self, x):
        hidden = self.cell(x, self.inner.hidden)
        if x.sum() > 0:
            hidden = hidden * 2
        self.inner.hidden = hidden
        return {"out": hidden + 1}


CASES = {
    "buffers": (Running, torch.randn(2, 8), {"x": {0: "batch"}}, ["state.count", "state.mean"]),
    "growing": (Cached, torch.randn(1, 2, 8), {"x": {1: "seq"}, "state.cache": {1: "past"}}, ["state.cache"]),
    "attribute": (Outer, torch.randn(2, 8), {}, ["state['inner.hidden']"]),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("case", "format"),
    [*((case, "onnx") for case in CASES), ("growing", "pt2"), ("attribute", "torchscript")],
)
def test_calls_in_a_row_return_what_eager_returns(case, format, tmp_path):
    kind, x, dynamic, names = CASES[case]
    module, path = kind().eval(), tmp_path / {"onnx": "m.onnx", "pt2": "m.pt2", "torchscript": "m.pt"}[format]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    artifact = deploypipe.export(module, (x,), format=format, path=path, dynamic=dynamic, state="explicit")
    assert [spec.name for spec in artifact.signature.inputs] == ["x", *names]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert deploypipe.verify(module, path).passed

    runner = deploypipe.load(path)
    state = {
        name: getattr(module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]).clone()
        for name in (_key(name) for name in names)
    }
    with torch.no_grad():
        for _ in range(3):
            given = {name: value.clone() for name, value in state.items()}
            outputs, state = runner(x, state=state)
            expected = module(x)
            for name, value in given.items():  # a runner does not change what it is given
                assert value.shape != state[name].shape or not torch.equal(value, state[name])
            pairs = [(outputs["out"], expected["out"])] if isinstance(expected, dict) else [(outputs, expected)]
            for found, wanted in pairs:
                assert torch.allclose(found, wanted, atol=1e-5)


def _key(path):
    inside = path.removeprefix("state")
    return inside[2:-2] if inside.startswith("[") else inside[1:]


def test_refusal_without_the_option_names_it():
    with pytest.raises(ExportError) as caught:
        capture(Running(), (torch.randn(2, 8),))
    assert 'state="explicit" (--state explicit)' in caught.value.remedy
