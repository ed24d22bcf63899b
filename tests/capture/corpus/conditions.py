"""The many ways to write a condition."""
# ruff: noqa: SIM208 -- written as users write it

import torch
from torch import Tensor, nn

from ._case import ROWS, case, num, rand

FORM = "conditions"
BOTH_SIGNS = [(rand(5, 4, shift=2.0),), (rand(2, 4, shift=-2.0),), (rand(1, 4, shift=1.0),)]
FOUR = [(rand(3, 4, shift=s),) for s in (-9.0, -0.5, 0.5, 9.0)] + [(rand(1, 4),)]


@case("chained_comparison", FORM, (rand(3, 4),), FOUR, ROWS)
class ChainedComparison(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if -1 < x.mean() < 1:
            return x
        if x.min() <= x.mean() <= x.max() < 0:
            return -x
        return x / 10


@case("any_and_all", FORM, (rand(3, 4),), [(rand(4, 4, shift=9.0),), (rand(2, 4, shift=-9.0),), (rand(3, 4),)], ROWS)
class AnyAndAll(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if (x > 0).all():
            x = x.log()
        elif (x > 0).any():
            x = x.relu()
        if torch.all(x < 0):
            x = -x
        return x


@case("truth_of_a_count", FORM, (rand(3, 4),), [(rand(3, 4),), (rand(2, 4, shift=-9.0),)], ROWS)
class TruthOfACount(nn.Module):
    """An integer tensor, and a method call, as the whole condition."""

    def forward(self, x: Tensor) -> Tensor:
        count = (x > 0).sum()
        if count:
            x = x / count
        if not x.gt(0).any():
            x = x.abs()
        return x


@case("not_and_double_not", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class NotAndDoubleNot(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not x.sum() > 0:
            x = x + 1
        if not (not (x.mean() > 0)):
            x = x * 2
        return x


@case("static_and_dynamic_condition", FORM, (rand(3, 4),), [(rand(3, 4) * 9,), (rand(2, 4) * 0.1,)], ROWS)
class StaticAndDynamicCondition(nn.Module):
    def __init__(self, clip: bool = True, limit: float | None = None) -> None:
        super().__init__()
        self.clip, self.limit = clip, limit

    def forward(self, x: Tensor) -> Tensor:
        if self.clip and x.abs().max() > 1:
            x = x.clamp(-1, 1)
        if self.limit is not None and x.max() > self.limit:  # fixed
            x = x * 0
        if self.limit is None or x.max() > self.limit:  # fixed
            x = x + 1
        return x


@case(
    "size_and_value",
    FORM,
    (rand(3, 4),),
    [(rand(2, 4, shift=1.0),), (rand(7, 4, shift=1.0),), (rand(7, 4, shift=-1.0),), (rand(1, 4, shift=-1.0),)],
    ROWS,
)
class SizeAndValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 4 and x.sum() > 0:
            return x - x.mean(dim=0)
        if x.size(0) == 1 or len(x) % 2 == 0:
            return x * 3
        return x + 1


@case(
    "guarded_by_emptiness",
    FORM,
    (rand(3, 4),),
    [(rand(0, 4),), (rand(3, 4, shift=5.0),), (rand(2, 4, shift=-5.0),)],
    ROWS,
)
class GuardedByEmptiness(nn.Module):
    """The right-hand side raises on an empty batch: only the short circuit makes it safe."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0 or x.min() < 0:
            return x.abs()
        return x.sqrt()


@case("walrus", FORM, (rand(3, 4),), [(rand(3, 4) * 9,), (rand(2, 4) * 0.1,)], ROWS)
class Walrus(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if (peak := x.abs().max()) > 1:
            x = x / peak
        return x + peak


@case("membership", FORM, (rand(3, 4), num(1)), [(rand(2 + m, 4), num(m)) for m in range(4)], ROWS)
class Membership(nn.Module):
    def forward(self, x: Tensor, mode: Tensor) -> Tensor:
        if mode.item() in (1, 3):
            x = x * 2
        if int(mode) not in [0, 1]:
            x = x - 1
        return x


@case("stored_conditions", FORM, (rand(3, 4),), FOUR, ROWS)
class StoredConditions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        high = x.max() > 3
        low = x.min() < -3
        both = high or low
        if both and not low:
            x = x - 3
        elif low:
            x = x + 3
        if bool(high) == bool(low):
            x = x * 2
        return x


@case("boolean_value_used_as_number", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class BooleanValueUsedAsNumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        positive = x.sum() > 0
        return x * positive + (x.mean() > 1 and positive)


@case("or_gives_a_default", FORM, (rand(3, 4), num(0)), [(rand(3, 4), num(0)), (rand(2, 4), num(5))], ROWS)
class OrGivesADefault(nn.Module):
    """`a or b` as a value, not as a truth."""

    def forward(self, x: Tensor, divisor: Tensor) -> Tensor:
        k = int(divisor) or 2
        return x / k


@case("close_to_zero", FORM, (rand(3, 4),), [(torch.zeros(2, 4),), (rand(4, 4),)], ROWS)
class CloseToZero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if torch.allclose(x, torch.zeros_like(x)):
            return x + 1
        return x / x.norm()


@case(
    "equal_tensors",
    FORM,
    (rand(3, 4), rand(3, 4)),
    [(rand(2, 4), rand(2, 4)), (rand(4, 4), rand(4, 4, seed=9))],
    {"x": {0: "batch"}, "y": {0: "batch"}},
)
class EqualTensors(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if torch.equal(x, y):
            return x
        return (x + y) / 2


@case(
    "builtin_max_and_min",
    FORM,
    (rand(3, 4),),
    [(rand(3, 4, shift=5.0),), (rand(2, 4, shift=-5.0),), (rand(1, 4) * 0.1,)],
    ROWS,
)
class BuiltinMaxAndMin(nn.Module):
    """Python's `max` and `min` compare tensors, which is a branch nobody sees."""

    def forward(self, x: Tensor) -> Tensor:
        top = max(x.sum(), x.new_zeros(()))
        low = min(x.mean().item(), 1.0)
        return x + top * low


@case(
    "two_tensors_compared",
    FORM,
    (rand(3, 4), rand(2, 6)),
    [(rand(2, 4, shift=3.0), rand(5, 6)), (rand(5, 4), rand(1, 6, shift=3.0))],
    {"x": {0: "rows"}, "y": {0: "others"}},
)
class TwoTensorsCompared(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if x.norm() / x.shape[0] >= y.norm() / y.shape[0]:
            return x.mean(dim=0)
        return y.mean(dim=0)[:4]


@case("bitwise_conditions", FORM, (rand(3, 4),), FOUR, ROWS)
class BitwiseConditions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if (x.mean() > 0) & (x.max() < 5):
            return x * 2
        if ~(x.min() > -3) | (x.mean() > 3):
            return x * 3
        return x
