"""`break`, `continue` and `return` inside loops."""

import torch
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, num, rand

FORM = "break, continue, return in loops"


@case(
    "break_first_statement",
    FORM,
    (rand(4, 3),),
    [(rand(5, 3, shift=2.0),), (rand(3, 3, shift=-2.0),), (rand(1, 3, shift=2.0),)],
    ROWS,
)
class BreakFirstStatement(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(3)
        for i in range(x.shape[0]):
            if x[i].sum() < 0:
                break
            total = total + x[i]
        return total


@case(
    "break_in_the_middle",
    FORM,
    (rand(3, 4), num(4)),
    [(rand(3, 4), num(6)), (rand(2, 4) + 20, num(6)), (rand(1, 4), num(0)), (rand(1, 4), num(1))],
    ROWS,
)
class BreakInTheMiddle(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        for i in range(int(n)):
            x = x * 1.5
            if x.max() > 10:
                x = x - 10
                break
            x = x + i
        return x


@case("break_in_else", FORM, (rand(3, 4),), [(rand(3, 4) + 3,), (rand(2, 4) - 3,), (rand(1, 4) + 40,)], ROWS)
class BreakInElse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        count = 0
        for _ in range(8):
            if x.mean() > 0:
                x = x - 2
                count += 1
            else:
                x = x * 2
                break
        return x + count


@case(
    "continue_on_negative_rows",
    FORM,
    (rand(4, 3),),
    [(rand(6, 3),), (rand(3, 3, shift=-9.0),), (rand(1, 3, shift=9.0),)],
    ROWS,
)
class ContinueOnNegativeRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(3)
        used = 0
        for row in x:
            if row.sum() < 0:
                continue
            total = total + row
            used += 1
        return total / (used + 1)


@case(
    "break_and_continue",
    FORM,
    (rand(2, 6, 3),),
    [(rand(1, 1, 3),), (rand(2, 12, 3),), (rand(2, 5, 3, shift=2.0),)],
    STEPS,
)
class BreakAndContinue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(x.shape[0], 3)
        for t in range(x.shape[1]):
            step = x[:, t]
            if step.max() < 0.5:
                continue
            total = total + step
            if total.sum() > 6:
                break
            total = total * 0.9
        return total


@case(
    "return_in_for",
    FORM,
    (rand(4, 3),),
    [(rand(5, 3, shift=2.0),), (rand(3, 3, shift=-3.0),), (rand(1, 3, shift=-3.0),)],
    ROWS,
)
class ReturnInFor(nn.Module):
    """The first row that is large enough."""

    def forward(self, x: Tensor) -> Tensor:
        for i in range(x.shape[0]):
            if x[i].sum() > 3:
                return x[i] * 2
        return torch.zeros(3)


@case("return_in_while_true", FORM, (rand(3, 4),), [(rand(3, 4) * 30,), (rand(2, 4) * 0.01,), (rand(1, 4) * 5,)], ROWS)
class ReturnInWhileTrue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while True:  # fixed
            if x.abs().max() < 1:
                return x + 1
            x = x / 3


@case(
    "return_in_nested_loops",
    FORM,
    (rand(3, 4),),
    [(rand(3, 5),), (rand(2, 2, shift=-5.0),), (rand(1, 1, shift=5.0),)],
    {"x": {0: "rows", 1: "columns"}},
)
class ReturnInNestedLoops(nn.Module):
    def forward(self, x: Tensor):
        visited = torch.tensor(0.0)
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                if x[i, j] > 1:
                    return x[i, j], visited
                visited = visited + 1
        return torch.tensor(0.0), visited


@case(
    "inner_break_only",
    FORM,
    (rand(3, 4),),
    [(rand(3, 5),), (rand(2, 2, shift=-5.0),), (rand(1, 4, shift=5.0),)],
    {"x": {0: "rows", 1: "columns"}},
)
class InnerBreakOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(())
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                if x[i, j] > 0.5:
                    break
                total = total + x[i, j]
            total = total * 0.5
        return total


@case(
    "break_out_of_both",
    FORM,
    (rand(3, 4),),
    [(rand(3, 5),), (rand(2, 2, shift=-5.0),), (rand(1, 4, shift=5.0),)],
    {"x": {0: "rows", 1: "columns"}},
)
class BreakOutOfBoth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        found = False
        total = torch.zeros(())
        for row in x:
            for value in row:
                if value > 1:
                    found = True
                    break
                total = total + value
            if found:
                break
        return total if found else total - 100


@case(
    "return_from_a_module_list", FORM, (rand(3, 4),), [(rand(2, 4) * 0.1,), (rand(5, 4) * 3,), (rand(1, 4) * 20,)], ROWS
)
class ReturnFromAModuleList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:  # fixed
            x = layer(x)
            if x.norm() < 1.5:
                return x * 10
        return x


@case(
    "while_break_and_return",
    FORM,
    (rand(3, 4), num(3)),
    [
        (rand(3, 4), num(5)),
        (rand(2, 4) + 30, num(5)),
        (rand(1, 4) - 30, num(5)),
        (rand(1, 4), num(0)),
        (rand(1, 4), num(1)),
    ],
    ROWS,
)
class WhileBreakAndReturn(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        i = 0
        while i < n:
            if x.mean() > 20:
                return x / 20
            if x.mean() < -20:
                break
            x = x + torch.cos(x)
            i += 1
        return x * 2


@case(
    "continue_in_a_branch_of_a_branch",
    FORM,
    (rand(5, 3),),
    [(rand(9, 3) * 2,), (rand(1, 3),), (rand(3, 3, shift=4.0),)],
    ROWS,
)
class ContinueInABranchOfABranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(3)
        for row in x:
            if row.max() > 1:
                if row.min() < -1:
                    continue
                out = out + 1
            else:
                out = out - 1
            out = out + row
        return out
