"""log1p, expm1 and what is made of it, to the last digits near zero."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deploypipe

X = torch.tensor([[0.0, 1e-8, -1e-8, 1e-4], [-3e-3, 0.3, -0.5, 2.0], [-20.0, 30.0, -0.0, 1e-30]])
EDGES = torch.tensor([[float("inf"), float("-inf"), float("nan"), 100.0], [-1.0, -100.0, -2.0, 88.0]])
INPUTS = [(X,), (EDGES,), (X[:1],), (X[:0],)]


@pytest.mark.parametrize(
    "forward", [torch.log1p, torch.expm1, F.elu, F.selu, F.celu, F.logsigmoid], ids=lambda function: function.__name__
)
def test_edges(compare: Callable[..., None], forward: Any) -> None:
    compare(forward, INPUTS)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "activation",
    [torch.log1p, torch.expm1, nn.ELU(), nn.ELU(0.5), nn.SELU(), nn.CELU(0.7)],
    ids=["log1p", "expm1", "elu", "elu of 0.5", "selu", "celu"],
)
def test_small_values_keep_their_digits(activation: Any, tmp_path: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 5, bias=False)

        def forward(self, x: Tensor) -> Any:
            return activation(self.layer(x).abs() if activation is torch.log1p else self.layer(x))

    module = Net().eval()
    deploypipe.export(
        module, (torch.randn(4, 8),), format="onnx", path=tmp_path / "m.onnx", dynamic={"x": {0: "batch"}}
    )
    small = torch.randn(3, 8) * 1e-5
    torch.testing.assert_close(deploypipe.load(tmp_path / "m.onnx")(small), module(small), rtol=1e-5, atol=0.0)
