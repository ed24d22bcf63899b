"""Linear layers that torch has quantized are carried, to the bit of torch's own kernels."""

import pytest
import torch
from torch import nn
from torch.ao.quantization import default_dynamic_qconfig, per_channel_dynamic_qconfig, quantize_dynamic

import deploypipe
from deploypipe.formats import FORMATS
from deploypipe.torch_compat.quantized import emulated, hidden_weights


class Two(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(16, 12, bias=bias), nn.Linear(12, 4, bias=bias)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def quantized(module, config=default_dynamic_qconfig, dtype=torch.qint8):
    return quantize_dynamic(module.eval(), {nn.Linear: config} if dtype is torch.qint8 else {nn.Linear}, dtype=dtype)


CASES = {
    "per tensor": lambda: quantized(Two()),
    "per channel": lambda: quantized(Two(), per_channel_dynamic_qconfig),
    "without bias": lambda: quantized(Two(bias=False)),
    "float16": lambda: quantized(Two(), dtype=torch.float16),
    "the module itself": lambda: quantized(nn.Sequential(nn.Linear(16, 4)))[0],
}
INPUTS = {
    "both signs": lambda: torch.randn(5, 16),
    "positive": lambda: torch.rand(3, 16) + 1,
    "negative": lambda: -torch.rand(3, 16) - 1,
    "zero": lambda: torch.zeros(2, 16),
    "tiny": lambda: torch.randn(4, 16) * 1e-6,
    "huge": lambda: torch.randn(4, 16) * 1e6,
    "one value": lambda: torch.full((2, 16), 0.3),
    "three axes": lambda: torch.randn(2, 3, 16),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("case", CASES)
def test_the_same_to_the_bit(case, inputs):
    module = CASES[case]()
    stand_in = emulated(module)
    for seed in range(5):
        torch.manual_seed(seed)
        x = INPUTS[inputs]()
        want, got = module(x), stand_in(x)
        if case == "float16":
            torch.testing.assert_close(got, want)
        else:
            assert torch.equal(got, want)


@pytest.mark.sample(1)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_carries_them(format, tmp_path):
    module, path = CASES["per tensor"](), tmp_path / f"m{FORMATS[format].suffix}"
    artifact = deploypipe.export(module, (torch.randn(2, 16),), format=format, path=path, dynamic={"x": {0: "n"}})
    x = torch.randn(7, 16)
    torch.testing.assert_close(deploypipe.load(path)(x), module(x))
    assert "weights" in artifact.parity["checks"]


@pytest.mark.filterwarnings("ignore")
def test_their_weights_are_among_the_modules():
    names = dict(hidden_weights(CASES["per tensor"]()))
    assert {"a.weight", "a.bias", "b.weight"} <= set(names)
    assert not dict(hidden_weights(Two()))
    assert emulated(module := Two()) is module
