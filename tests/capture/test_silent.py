"""What once could go wrong without a word: randomness, sizes of 0 and 1, names with a value on one path only."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from carrying import FORMATS, Carried
from comparing import difference
from torch import Tensor, nn

from deploypipe.errors import ExportError
from deploypipe.staging.outcomes import possible_outcomes
from deploypipe.staging.trace import trace

ROWS = {"x": {0: "rows"}}


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class AlwaysDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = F.dropout(x, 0.5)
        return x


class Fresh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(4)


@pytest.mark.parametrize("made", [Noise, AlwaysDropout, Fresh])
def test_randomness_is_refused(made: type[nn.Module]) -> None:
    with pytest.raises(ExportError, match=r"draws random numbers"):
        trace(made(), (torch.ones(3, 4),), ROWS)


class DropoutInEval(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.dropout(x), 0.3, self.training) + 1


class SizeAgainstAVariable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        none, one = 0, 1
        if x.shape[0] == none:
            return torch.zeros(4)
        if x.shape[0] <= one:
            return x.sum(0) * 10
        if x.size(0) != one + 1:
            return x.sum(0)
        return x.sum(0) - 1


class OnePathOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            y = x * 2
        if x.sum() > 0:
            x = y + 1
        return x


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("made", [DropoutInEval, SizeAgainstAVariable, OnePathOnly])
def test_carried(made: type[nn.Module], fmt: str) -> None:
    probes = [(torch.full((rows, 4), value),) for rows in (0, 1, 2, 3) for value in (0.5, -0.5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = Carried(made().eval(), (torch.ones(3, 4),), ROWS, probes).runner(fmt)
    for probe in probes:
        assert difference(made().eval()(*probe), runner(*probe)) is None, probe


class ConstantRange(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(10):
            x = x * 2
            if x.sum() > 100:
                break
        return x


def test_a_constant_range_is_not_asked_to_be_empty() -> None:
    made = trace(ConstantRange(), (torch.ones(3, 4),), ROWS)
    (loop,) = [site for site in made.sites if site.kind == "for"]
    assert possible_outcomes(loop) == {"1", "many"}
