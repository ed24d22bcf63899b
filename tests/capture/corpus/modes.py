"""Modes: train and eval, no_grad, an example that holds a batch of one."""
# ruff: noqa: SIM108 -- written as users write it

import torch
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, ints, num, rand

FORM = "modes"
BOTH_SIGNS = [(rand(5, 4, shift=2.0),), (rand(2, 4, shift=-2.0),), (rand(1, 4, shift=1.0),)]


@case("left_in_train_mode", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class LeftInTrainMode(nn.Module):
    """Exported as eval: no dropout, running statistics."""

    keep_train = True

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if x.mean() > 0:
            x = self.drop(x) * 2
        return x


@case("branch_on_training", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class BranchOnTraining(nn.Module):
    keep_train = True

    def forward(self, x: Tensor) -> Tensor:
        if self.training:  # fixed
            x = x + torch.randn_like(x)
        elif x.sum() > 0:
            x = x / 2
        return x


@case("under_no_grad", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class UnderNoGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            if x.mean() > 0:
                y = self.linear(x)
            else:
                y = x * 2
        return y + self.linear(x)


@case(
    "loop_under_decorated_no_grad",
    FORM,
    (rand(3, 4), num(2)),
    [(rand(3, 4), num(0)), (rand(1, 4), num(1)), (rand(2, 4), num(5))],
    ROWS,
)
class LoopUnderDecoratedNoGrad(nn.Module):
    @torch.no_grad()
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        for _ in range(int(n)):
            x = x - 0.1 * x.sign()
        return x.detach()


@case("example_of_one", FORM, (rand(1, 4),), BOTH_SIGNS, ROWS)
class ExampleOfOne(nn.Module):
    """Captured with a batch of one, used with any: nothing may broadcast by accident."""

    def forward(self, x: Tensor) -> Tensor:
        weights = x.softmax(dim=0)
        if x.sum() > 0:
            return x * weights
        return x - weights.sum(dim=0)


@case("example_of_one_step", FORM, (rand(1, 1, 3),), [(rand(1, 1, 3),), (rand(3, 7, 3),), (rand(2, 2, 3),)], STEPS)
class ExampleOfOneStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 5)
        out = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            out.append(h)
        return torch.stack(out, dim=1)


@case(
    "example_that_runs_zero_times",
    FORM,
    (rand(2, 4), num(0)),
    [(rand(2, 4), num(0)), (rand(1, 4), num(1)), (rand(3, 4), num(4))],
    ROWS,
)
class ExampleThatRunsZeroTimes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        collected = [x]
        for _ in range(int(n)):
            x = self.layer(x).relu()
            collected.append(x)
        return torch.stack(collected).sum(dim=0)


@case("branch_on_size_of_one", FORM, (rand(1, 4),), [(rand(1, 4),), (rand(2, 4),), (rand(6, 4),)], ROWS)
class BranchOnSizeOfOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) == 1:
            return x * 10
        return x - x.mean(dim=0, keepdim=True)


@case(
    "integer_input_only",
    FORM,
    (ints(9, 2, 3),),
    [(torch.tensor([[1, 2, 4]]),), (torch.full((2, 3), 4),), (-torch.ones(3, 3, dtype=torch.long),)],
    ROWS,
)
class IntegerInputOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() % 2 == 0:
            return x // 2
        if (x < 0).any():
            return x * x
        return x + 1


@case("double_precision", FORM, (rand(3, 4).double(),), [(p[0].double(),) for p in BOTH_SIGNS], ROWS)
class DoublePrecision(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while x.abs().max() > 1.25:
            x = x * 0.8
        return x
