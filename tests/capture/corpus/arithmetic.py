"""Python's own arithmetic on numbers that came from tensors: where runtimes round another way than Python does."""

import torch
from torch import Tensor, nn

from ._case import ROWS, case, num, rand

FORM = "Python arithmetic"
COUNTS = [(rand(3, 4), num(0)), (rand(1, 4), num(1)), (rand(4, 4), num(6)), (rand(2, 4), num(3))]


@case("floor_division_of_negatives", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class FloorDivisionOfNegatives(nn.Module):
    """Python rounds down; a runtime that rounds towards zero is off by one."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        k = int(n)
        return x + (k - 3) // 2


@case("floor_division_of_a_counter", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class FloorDivisionOfACounter(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        k = 0
        while k < n:
            k += 1
        return x + (-k // 2) * 10 + k // -3


@case("modulo_of_negatives", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class ModuloOfNegatives(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        total = 0
        for i in range(int(n)):
            total += (i - 3) % 5 + i % -3
        return x + total


@case("float_floor_and_modulo", FORM, (rand(3, 4),), [(rand(3, 4),), (rand(1, 4) - 3,), (rand(2, 4) + 3,)], ROWS)
class FloatFloorAndModulo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        level = x.mean().item()
        return x + level // 0.7 + level % 0.3


@case("powers_of_a_count", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class PowersOfACount(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        k = int(n)
        return x * 2**k + k**2


@case("booleans_counted", FORM, (rand(3, 4),), [(rand(5, 4),), (rand(1, 4) - 9,), (rand(2, 4) + 9,)], ROWS)
class BooleansCounted(nn.Module):
    """True adds one."""

    def forward(self, x: Tensor) -> Tensor:
        positive = 0
        for row in x:
            positive += row.sum().item() > 0
        return x * positive


@case("truncation_and_rounding", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class TruncationAndRounding(nn.Module):
    """`int` cuts towards zero, `round` goes to even, `/` is exact."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        k = int(n) - 2
        return x + int(-1.5 * k) + round(k / 2) * 10 + k / 4 + abs(k)


@case("branch_on_floor_division", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class BranchOnFloorDivision(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        if (int(n) - 4) // 3 < -1:
            return x + 1
        return x * torch.tensor(2.0)
