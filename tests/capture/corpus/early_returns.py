"""Returns before the end of the function."""

import torch
from torch import Tensor, nn

from ._case import ROWS, case, rand

FORM = "early returns"
BOTH_SIGNS = [(rand(5, 4, shift=2.0),), (rand(2, 4, shift=-2.0),), (rand(1, 4, shift=1.0),)]


@case(
    "return_ladder",
    FORM,
    (rand(3, 4),),
    [(rand(2, 4, shift=s),) for s in (-9.0, -1.0, 1.0, 9.0)] + [(rand(1, 4),)],
    ROWS,
)
class ReturnLadder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        m = x.mean()
        if m > 5:
            return x - 5
        x = x * 2
        if m > 0:
            return x
        x = x - m
        if m > -5:
            return x.abs()
        return torch.zeros_like(x)


@case(
    "return_in_nested_if",
    FORM,
    (rand(3, 4),),
    [(rand(n, 4, shift=s) * k,) for s in (-2.0, 2.0) for n, k in ((1, 0.2), (3, 9.0))],
    ROWS,
)
class ReturnInNestedIf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            if x.max() > 5:
                return x / x.max()
            x = x + 1
        else:
            x = x - 1
            if x.min() < -5:
                return x / x.min()
        return x * x


@case("return_in_else", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class ReturnInElse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            y = x.relu()
        else:
            return x.sigmoid()
        y = y + x.mean()
        return y / 2


@case("return_pairs", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class ReturnPairs(nn.Module):
    def forward(self, x: Tensor):
        total = x.sum(dim=1)
        if total.mean() < 0:
            return total, x
        order = total.argsort()
        return total[order], x[order]


@case(
    "nothing_selected", FORM, (rand(3, 4),), [(rand(3, 4),), (rand(5, 4, shift=-9.0),), (rand(1, 4, shift=5.0),)], ROWS
)
class NothingSelected(nn.Module):
    """The guard that keeps a reduction from dividing by zero."""

    def forward(self, x: Tensor) -> Tensor:
        keep = x > 0
        if keep.sum() == 0:
            return torch.zeros(x.shape[1])
        return (x * keep).sum(dim=0) / keep.sum()


@case("return_in_helper", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class ReturnInHelper(nn.Module):
    def pick(self, x: Tensor) -> Tensor:
        if x.mean() < 0:
            return -x
        if x.max() > 3:
            return x / 3
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.pick(x) + self.pick(-x) * 0.5


@case("return_under_no_grad", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class ReturnUnderNoGrad(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            if x.sum() > 0:
                return x.exp()
            x = x * 2
        return x + 1


@case("return_condition_itself", FORM, (rand(3, 4),), [*BOTH_SIGNS, (rand(4, 4) * 0.1,)], ROWS)
class ReturnConditionItself(nn.Module):
    def forward(self, x: Tensor):
        inside = x.abs().amax(dim=1) < 2.5
        if inside.all():
            return x, inside
        return x.clamp(-2.5, 2.5), inside
