"""A tensor with two names, changed in place: what eager does to both is carried or refused, never done to one only."""

import warnings

import pytest
import torch
from carrying import FORMATS, Carried
from comparing import difference
from torch import Tensor, nn

from deploypipe.errors import ExportError


class InAList(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        items = [x * 1]
        y = items[0]
        if x.sum() > 0:
            items.append(x * 2)
            y = y * 1
        y *= -1.5
        return y + items[0]


class SecondName(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        y = x * 3
        if x.sum() > 0:
            y = x
        y += 1
        return x + y


class BeforeALoop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        y = x
        while y.sum() < 10:
            y += 1
        return x + y


class AppendedThenChanged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        state = x[0] * 0
        seen = []
        for row in x:
            state += row
            seen.append(state)
        return torch.stack(seen)


class OneNameOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * 2
        x += 1
        total = torch.zeros_like(x)
        for row in x:
            total += row
            total[0] += 1
        return total + x


PROBES = [(torch.full((3, 4), 0.5),), (torch.full((3, 4), -0.5),), (torch.full((1, 4), 2.0),)]


@pytest.mark.parametrize("made", [InAList, SecondName, BeforeALoop, AppendedThenChanged, OneNameOnly])
def test_never_to_one_only(made: type[nn.Module]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            carried = Carried(made(), PROBES[0], {"x": {0: "rows"}}, PROBES)
        except ExportError as error:
            assert made is not OneNameOnly, error
            assert "in place" in str(error)
            return
        for fmt in FORMATS:
            runner = carried.runner(fmt)
            for probe in PROBES:
                expected = made()(*[t.clone() for t in probe])
                assert difference(expected, runner(*probe)) is None, (fmt, probe)
