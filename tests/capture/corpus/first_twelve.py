"""The twelve forms that the comparison table shows, one case each."""
# ruff: noqa: SIM108 -- written as users write it

import torch
from torch import Tensor, nn

from ._case import ROWS, case, ints, rand


@case(
    "branch_on_sum",
    "if / else",
    (rand(3, 4),),
    [(rand(5, 4, shift=2.0),), (rand(2, 4, shift=-2.0),), (rand(1, 4),)],
    ROWS,
)
class BranchOnSum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            y = x * 2
        else:
            y = x + 1
        return y


@case("branch_without_else", "if without else", (rand(3, 4),), [(rand(2, 4) * 9,), (rand(6, 4) * 0.01,)], ROWS)
class BranchWithoutElse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        peak = x.abs().max()
        if peak > 1:
            x = x / peak
        return x.tanh()


@case("early_return", "early return", (rand(3, 4),), [(rand(3, 4, shift=-3.0),), (rand(4, 4, shift=3.0),)], ROWS)
class EarlyReturn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() < 0:
            return -x
        x = x.sqrt().nan_to_num()
        return x * 2


@case(
    "submodule_routing",
    "submodules in branches",
    (rand(3, 8),),
    [(rand(5, 8, shift=1.0),), (rand(2, 8, shift=-1.0),)],
    ROWS,
)
class SubmoduleRouting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Linear(8, 4)
        self.large = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            scores = self.large(x)
        else:
            scores = self.small(x)
        return scores.softmax(dim=-1)


@case(
    "and_or_conditions",
    "and / or / not",
    (rand(3, 4),),
    [(rand(3, 4, shift=1.0),), (rand(3, 4, shift=9.0),), (rand(3, 4, shift=-1.0),), (rand(2, 4, shift=-9.0),)],
    ROWS,
)
class AndOrConditions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = x.sum()
        if (total > 0 and x.max() < 5) or not x.min() > -5:
            return x * total
        return x - total


@case("while_below_norm", "while", (rand(3, 4),), [(rand(3, 4) * 100,), (rand(3, 4) * 0.01,), (rand(1, 4) * 7,)], ROWS)
class WhileBelowNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while x.norm() > 1:
            x = x * 0.5
        return x


@case(
    "tensor_depth",
    "for over int(tensor)",
    (rand(2, 10), torch.tensor(3)),
    [(rand(4, 10), torch.tensor(0)), (rand(1, 10), torch.tensor(1)), (rand(3, 10), torch.tensor(7))],
    ROWS,
)
class TensorDepth(nn.Module):
    """How often the layer is applied is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 10)

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        for _ in range(int(depth)):
            x = torch.relu(self.layer(x))
        return x


@case(
    "recurrent_cell",
    "for over a length, recurrent",
    (ints(50, 2, 5),),
    [(ints(50, 3, 9),), (ints(50, 1, 1),), (ints(50, 4, 2),)],
    {"tokens": {0: "batch", 1: "length"}},
)
class RecurrentCell(nn.Module):
    """Sentences of any length, one GRU step a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.cell = nn.GRUCell(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        state = torch.zeros(tokens.shape[0], 8)
        for t in range(tokens.shape[1]):
            state = self.cell(self.embed(tokens[:, t]), state)
        return state


@case(
    "break_when_large",
    "break",
    (rand(3, 4, shift=1.0),),
    [(rand(3, 4, shift=1.0),), (rand(3, 4, shift=60.0),), (torch.zeros(2, 4),)],
    ROWS,
)
class BreakWhenLarge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(10):
            if x.abs().sum() > 100:
                break
            x = x * 2
        return x


@case(
    "branch_inside_loop",
    "branch in a loop",
    (rand(3, 4), torch.tensor(4)),
    [
        (rand(3, 4, shift=2.0), torch.tensor(5)),
        (rand(2, 4, shift=-2.0), torch.tensor(5)),
        (rand(2, 4), torch.tensor(0)),
    ],
    ROWS,
)
class BranchInsideLoop(nn.Module):
    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        i = 0
        while i < steps:
            if x.mean() > 0:
                x = x - 1
            else:
                x = x + 1.5
            i += 1
        return x


@case(
    "collect_steps",
    "list that grows",
    (rand(2, 5, 3),),
    [(rand(1, 1, 3),), (rand(3, 8, 3),), (rand(2, 2, 3),)],
    {"x": {0: "batch", 1: "length"}},
)
class CollectSteps(nn.Module):
    """A list of per-step outputs, stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        carry = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            carry = torch.tanh(self.mix(x[:, t]) + carry)
            steps.append(carry)
        return torch.stack(steps, dim=1)


@case("branch_on_size", "branch on a size", (rand(3, 4),), [(rand(2, 4),), (rand(9, 4),), (rand(1, 4),)], ROWS)
class BranchOnSize(nn.Module):
    """The path depends on the batch size, which must stay dynamic."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 4:
            return x - x.mean(dim=0)
        return x * 3
