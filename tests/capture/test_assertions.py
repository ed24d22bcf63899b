"""An `assert` or `raise` stops the artifact where it stops eager, also inside branches and loops."""

import warnings

import pytest
import torch
from carrying import GENERATED, Carried
from comparing import difference
from torch import Tensor, nn


class InABranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            assert x.min() > -1, "too small"
            x = x * 2
        return x + 1


class InALoop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(4)
        for row in x:
            if row.min() <= -1:
                raise ValueError("too small")
            total = total + row
        return total


GOOD = [(torch.full((3, 4), 0.5),), (torch.full((1, 4), 0.1),)]
BAD = torch.tensor([[9.0, 9.0, 9.0, -2.0], [1.0, 1.0, 1.0, 1.0]])


@pytest.mark.parametrize("fmt", ["torchscript", "pt2", GENERATED])
@pytest.mark.parametrize("made", [InABranch, InALoop])
def test_a_failure_stays_a_failure(made: type[nn.Module], fmt: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = Carried(made(), GOOD[0], {"x": {0: "rows"}}, GOOD).runner(fmt)
    for probe in GOOD:
        assert difference(made()(*probe), runner(*probe)) is None
    with pytest.raises((AssertionError, ValueError)):
        made()(BAD)
    with pytest.raises((AssertionError, RuntimeError, torch.jit.Error)):
        runner(BAD)


@pytest.mark.parametrize("made", [InABranch, InALoop])
def test_onnx_computes_the_same_where_nothing_fails(made: type[nn.Module]) -> None:
    """ONNX has no assertion: there, an input that eager rejects gives numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = Carried(made(), GOOD[0], {"x": {0: "rows"}}, GOOD).runner("onnx")
    for probe in GOOD:
        assert difference(made()(*probe), runner(*probe)) is None
