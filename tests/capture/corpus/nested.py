"""Forms inside one another."""
# ruff: noqa: SIM108 -- written as users write it

import torch
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, num, rand

FORM = "nested"
LENGTHS = [(rand(1, 1, 3),), (rand(3, 8, 3),), (rand(2, 2, 3),)]


@case(
    "loop_in_branch",
    FORM,
    (rand(3, 4), num(2)),
    [(rand(n + 1, 4) + s, num(n)) for s in (2.0, -2.0) for n in (0, 1, 4)],
    ROWS,
)
class LoopInBranch(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        if x.mean() > 0:
            for _ in range(int(n)):
                x = x * 0.5
        else:
            while x.min() < -1:
                x = x + 0.75
        return x


@case(
    "loop_in_loop_in_branch",
    FORM,
    (rand(2, 4, 3), num(2)),
    [
        (rand(1, 1, 3), num(0)),
        (rand(2, 5, 3, shift=1.0), num(3)),
        (rand(2, 5, 3, shift=-1.0), num(1)),
        (rand(2, 3, 3, shift=1.0), num(0)),
    ],
    STEPS,
)
class LoopInLoopInBranch(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        total = torch.zeros(x.shape[0], 3)
        if x.sum() > 0:
            for t in range(x.shape[1]):
                step = x[:, t]
                for _ in range(int(n)):
                    step = torch.tanh(step)
                total = total + step
        return total


@case("while_in_for", FORM, (rand(4, 3),), [(rand(5, 3) * 20,), (rand(1, 3) * 0.1,), (rand(3, 3),)], ROWS)
class WhileInFor(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = []
        for row in x:
            while row.norm() > 1:
                row = row * 0.5
            out.append(row)
        return torch.stack(out)


@case(
    "for_in_while", FORM, (rand(2, 4, 3),), [(rand(1, 1, 3) * 9,), (rand(2, 5, 3) * 9,), (rand(2, 2, 3) * 0.01,)], STEPS
)
class ForInWhile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rounds = 0
        while x.norm() > 2 and rounds < 6:
            carry = torch.zeros(x.shape[0], 3)
            for t in range(x.shape[1]):
                carry = 0.5 * carry + x[:, t]
            x = x * 0.5 - carry.unsqueeze(1) * 0.01
            rounds += 1
        return x + rounds


@case(
    "break_in_inner_continue_in_outer",
    FORM,
    (rand(4, 5),),
    [(rand(6, 7),), (rand(1, 1),), (rand(3, 4, shift=2.0),), (rand(2, 3, shift=-3.0),)],
    {"x": {0: "rows", 1: "columns"}},
)
class BreakInInnerContinueInOuter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        score = torch.zeros(())
        for i in range(x.shape[0]):
            if x[i].mean() < -1:
                continue
            run = 0
            for j in range(x.shape[1]):
                if x[i, j] < 0:
                    break
                run += 1
            if run > 2:
                score = score + run * 10
            else:
                score = score + run
        return score


@case(
    "branch_ladder_in_loop", FORM, (rand(2, 6, 3),), [(rand(1, 1, 3),), (rand(2, 9, 3) * 3,), (rand(3, 4, 3),)], STEPS
)
class BranchLadderInLoop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 3)
        hot, cold = 0, 0
        for t in range(x.shape[1]):
            level = x[:, t].mean()
            if level > 1:
                h = h + x[:, t].relu()
                hot += 1
            elif level > -1:
                h = h * 0.9 + x[:, t]
            else:
                h = torch.zeros_like(h)
                cold += 1
        return h + hot - cold


@case(
    "early_return_then_loop",
    FORM,
    (rand(2, 4, 3),),
    [(rand(2, 5, 3, shift=1.0),), (rand(1, 1, 3, shift=1.0),), (rand(3, 3, 3, shift=-1.0),)],
    STEPS,
)
class EarlyReturnThenLoop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() < 0:
            return x[:, 0]
        h = x[:, 0]
        for t in range(1, x.shape[1]):
            if x[:, t].sum() > h.sum():
                h = x[:, t]
        return h * 2


@case(
    "three_deep",
    FORM,
    (rand(3, 3), num(3)),
    [(rand(3, 3), num(3)), (rand(1, 3) * 5, num(4)), (rand(2, 3), num(0)), (rand(2, 3), num(1))],
    ROWS,
)
class ThreeDeep(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        total = torch.zeros(3)
        for i in range(int(n)):
            for row in x:
                k = 0
                while k < i:
                    if row.sum() > k:
                        total = total + row
                    else:
                        total = total - 0.1
                    k += 1
        return total


@case(
    "return_inside_everything",
    FORM,
    (rand(3, 4),),
    [(rand(4, 4),), (rand(1, 4, shift=9.0),), (rand(2, 4, shift=-9.0),), (rand(5, 4) * 0.1,)],
    ROWS,
)
class ReturnInsideEverything(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 1:
            for row in x:
                if row.mean() > 2:
                    return row
                while row.abs().max() > 1:
                    row = row / 2
                    if row.sum() < -3:
                        return row - 1
        return x[0]


@case(
    "lists_in_nested_loops",
    FORM,
    (rand(3, 4),),
    [(rand(2, 5),), (rand(1, 1),), (rand(4, 3),)],
    {"x": {0: "rows", 1: "columns"}},
)
class ListsInNestedLoops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for i in range(x.shape[0]):
            cells = []
            for j in range(x.shape[1]):
                cells.append(x[i, j] * (i + 1) - j)
            rows.append(torch.stack(cells))
        return torch.stack(rows)


@case(
    "branch_chooses_loop_state",
    FORM,
    (rand(2, 5, 3),),
    [(rand(1, 1, 3, shift=1.0),), (rand(2, 7, 3, shift=-1.0),), (rand(3, 4, 3, shift=1.0),)],
    STEPS,
)
class BranchChoosesLoopState(nn.Module):
    """A module called in a branch of a loop, with tuple state carried around."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.LSTMCell(3, 3)
        self.b = nn.LSTMCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = (torch.zeros(x.shape[0], 3), torch.zeros(x.shape[0], 3))
        for t in range(x.shape[1]):
            if x[:, t].mean() > 0:
                state = self.a(x[:, t], state)
            else:
                state = self.b(x[:, t], state)
        h, c = state
        return h + c
