"""What depends on a sign, that of zero included, as eager has it at the edges."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from edges import FLOATS, INTEGERS, MISSING, NAN, WHOLE
from torch import Tensor

INF = float("inf")
AXES = (1.0, -1.0, 0.0, -0.0, INF, -INF, 3.5, 1e-30, -1e30)
PAIRS = torch.cartesian_prod(torch.tensor(AXES), torch.tensor(AXES))
ANGLES = [(PAIRS[:, :1], PAIRS[:, 1:]), (MISSING.reshape(-1, 1), PAIRS[:18, :1]), (PAIRS[:0, :1], PAIRS[:0, :1])]
ZEROS = torch.tensor([[0.0, -0.0, 1.0, -1.0, INF, -INF]])


def atan2(x: Tensor, y: Tensor) -> Any:
    return torch.atan2(x, y)


def signs(x: Tensor) -> Any:
    return x.signbit(), x.copysign(x.flip(1)), -x


def negated(x: Tensor) -> Any:
    return -x


def slope_of_float64(x: Tensor) -> Any:
    return F.leaky_relu(x.double(), 0.3), F.leaky_relu(x, 0.3)


def bounds_of_two_kinds(x: Tensor) -> Any:
    return x.clamp(0.5, 2), x.clamp(-1, 1.5), F.relu(x).clamp(-1, 1)


BYTES = [(torch.tensor([[0, 1, 127, 128, 254, 255]], dtype=torch.uint8),)]
CASES = {
    "atan2": (atan2, ANGLES),
    "signbit, copysign": (signs, [*FLOATS[:4], (ZEROS,), FLOATS[-1]]),
    "signbit, int64": (lambda x: x.signbit(), INTEGERS),
    "negation of uint8": (negated, BYTES),
    "leaky_relu of float64": (slope_of_float64, [*FLOATS, (torch.full((1, 6), NAN),)]),
    "clamp between a float and a whole number": (bounds_of_two_kinds, FLOATS),
    "clamp of whole numbers": (lambda x: x.clamp(-2, 3), [(WHOLE,)]),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize(("forward", "inputs"), CASES.values(), ids=CASES)
def test_signs(compare: Any, forward: Any, inputs: Any) -> None:
    compare(forward, inputs)
