"""`//`, `%`, `divmod` and `**` round in every format as Python and torch do, whatever the signs."""

import math
import warnings
from typing import Any

import pytest
import torch
from carrying import FORMATS, GENERATED, Carried
from comparing import difference
from torch import Tensor, nn

FLOATS = ((1.0, 0.1), (-1.0, 0.1), (1.0, -0.1), (-7.3, -2.0), (6.0, -3.0))
INTEGERS = ((7, 2), (-7, 2), (7, -2), (-7, -2), (6, -3), (0, 5))
PROBES = [(torch.tensor(x), torch.tensor(n), torch.tensor(d)) for x in FLOATS for n, d in INTEGERS]


class Integers(nn.Module):
    def forward(self, x: Tensor, n: Tensor, d: Tensor) -> Any:
        k, j = int(n), int(d)
        quotient, rest = divmod(k, j)
        changed = k
        changed //= j
        constants = k // 3, k % 3, k // -3, k % -3, 7 // j, -7 // j, 7 % j, -7 % j
        return quotient, rest, changed, k // j, k % j, constants


class Floats(nn.Module):
    def forward(self, x: Tensor, n: Tensor, d: Tensor) -> Any:
        f, g = x[0].item(), x[1].item()
        return divmod(f, g), f // g, f % g, f // 0.7, f % -0.25, 7.5 // g, -7.5 % g, int(n) // 0.5, int(n) % 0.7


class Tensors(nn.Module):
    def forward(self, x: Tensor, n: Tensor, d: Tensor) -> Any:
        numbers = n // d, n % d, n // 3, n % -3, torch.div(n, d, rounding_mode="floor")
        floats = x // 0.7, x % 0.3, x // -0.25, x[0] // x[1], x[0] % x[1], torch.remainder(x, -2)
        return numbers, floats, torch.div(x, x[1], rounding_mode="floor"), torch.div(n, d, rounding_mode="trunc")


@pytest.mark.parametrize("fmt", [*FORMATS, GENERATED])
@pytest.mark.parametrize("made", [Integers, Floats, Tensors])
def test_signs(made: type[nn.Module], fmt: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = Carried(made(), PROBES[0], {}, PROBES).runner(fmt)
    for probe in PROBES:
        assert difference(made()(*probe), runner(*probe)) is None, probe


class Powers(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Any:
        k = int(n)
        return x * 2**k + k**2 + k**3, x * 0.5**k, x[0].item() ** k, math.pow(2, k) * x, pow(k, 2)


@pytest.mark.parametrize("fmt", [*FORMATS, GENERATED])
def test_powers(fmt: str) -> None:
    probes = [(torch.tensor([1.5, 2.0]), torch.tensor(n)) for n in (0, 1, 5, -2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = Carried(Powers(), probes[0], {}, probes).runner(fmt)
    for probe in probes:
        assert difference(Powers()(*probe), runner(*probe)) is None, probe
