"""`for` loops over everything that a forward loops over."""
# ruff: noqa: SIM108, B007 -- written as users write it

import torch
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, num, rand

FORM = "for"
COUNTS = [(rand(3, 4), num(0)), (rand(1, 4), num(1)), (rand(4, 4), num(6))]
LENGTHS = [(rand(1, 1, 3),), (rand(3, 8, 3),), (rand(2, 2, 3),)]
LENGTHS_FROM_ZERO = [*LENGTHS, (rand(2, 0, 3),)]


@case("for_item", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class ForItem(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        for i in range(n.item()):
            x = x * 0.5 + i
        return x


@case(
    "for_between_tensors",
    FORM,
    (rand(3, 4), num(1), num(4)),
    [
        (rand(3, 4), num(1), num(4)),
        (rand(1, 4), num(5), num(2)),
        (rand(2, 4), num(3), num(4)),
        (rand(2, 4), num(-2), num(9)),
    ],
    ROWS,
)
class ForBetweenTensors(nn.Module):
    def forward(self, x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
        for k in range(int(start), int(stop)):
            x = x + k / 10
        return x


@case("for_tensor_step", FORM, (rand(3, 4), num(2)), [(rand(s, 4), num(s)) for s in (1, 3, 20)], ROWS)
class ForTensorStep(nn.Module):
    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        total = 0
        for k in range(0, 12, int(step)):
            total += k
        return x * total


@case("cumulative_by_hand", FORM, (rand(2, 5, 3),), LENGTHS_FROM_ZERO, STEPS)
class CumulativeByHand(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        total = torch.zeros(x.shape[0], x.shape[2])
        for t in range(x.shape[1]):
            total = total + x[:, t]
            out[:, t] = total
        return out


@case("reversed_range", FORM, (rand(2, 5, 3),), LENGTHS_FROM_ZERO, STEPS)
class ReversedRange(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        value = torch.zeros(x.size(0), 3)
        for t in reversed(range(x.size(1))):
            value = x[:, t] + 0.9 * value
        return value


@case("reversed_count", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class ReversedCount(nn.Module):
    """Nobody reads the index, whose first value is a size that is computed."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        for _ in reversed(range(int(n))):
            x = torch.sin(x)
        return x


@case("parity_in_a_loop", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class ParityInALoop(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        total = torch.zeros(4)
        for row in x:
            if (not (int(n) % 2 == 0)) or total.sum() > 1:  # noqa: SIM201
                total = total + row.abs()
        return total


@case("range_down", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class RangeDown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        value = x[:, -1]
        for t in range(steps - 2, -1, -1):
            value = torch.tanh(x[:, t] + value)
        return value


@case("every_second", FORM, (rand(2, 5, 3),), LENGTHS_FROM_ZERO, STEPS)
class EverySecond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        total = x.new_zeros(batch, 3)
        for t in range(0, length, 2):
            total = total * 0.5 + x[:, t]
        return total


@case("rows_of_a_tensor", FORM, (rand(3, 4),), [(rand(1, 4),), (rand(6, 4),), (rand(2, 4),), (rand(0, 4),)], ROWS)
class RowsOfATensor(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        best = torch.full((4,), -1e9)
        for row in x:
            best = torch.maximum(best, row * row.sum())
        return best


@case("enumerate_rows", FORM, (rand(3, 4),), [(rand(1, 4),), (rand(6, 4),), (rand(2, 4),)], ROWS)
class EnumerateRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(4)
        for i, row in enumerate(x, start=1):
            if row.sum() > 0:
                total = total + row / i
        return total


@case(
    "zip_rows",
    FORM,
    (rand(3, 4), rand(3, 4, seed=1)),
    [(rand(1, 4), rand(1, 4)), (rand(6, 4), rand(6, 4, seed=2)), (rand(2, 4), rand(2, 4, seed=5))],
    {"x": {0: "batch"}, "y": {0: "batch"}},
)
class ZipRows(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        score = torch.tensor(0.0)
        for a, b in zip(x, y):  # noqa: B905 -- written as users write it
            score = torch.sigmoid(a @ b + score)
        return score


@case(
    "module_list_with_branch",
    FORM,
    (rand(3, 4),),
    [(rand(2, 4, shift=3.0),), (rand(5, 4, shift=-3.0),), (rand(1, 4) * 30,)],
    ROWS,
)
class ModuleListWithBranch(nn.Module):
    """A loop over modules is unrolled; what is inside it still depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms)):  # fixed  # noqa: B905
            x = layer(x)
            if x.abs().max() > 1.5:
                x = norm(x)
            if i < len(self.layers) - 1:  # fixed
                x = x.relu()
        return x


@case("module_dict", FORM, (rand(3, 4),), [(rand(2, 4, shift=3.0),), (rand(5, 4, shift=-3.0),)], ROWS)
class ModuleDictLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Tanh()})

    def forward(self, x: Tensor) -> Tensor:
        for name, block in self.blocks.items():  # fixed
            y = block(x)
            if name == "a" and y.sum() < 0:
                y = -y
            x = x + y
        return x


@case("chunks", FORM, (rand(3, 4),), [(rand(2, 4, shift=3.0),), (rand(5, 4, shift=-3.0),)], ROWS)
class Chunks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for part in x.chunk(2, dim=1):  # fixed
            if part.mean() > 0:
                part = part * 2
            parts.append(part)
        return torch.cat(parts, dim=1)


@case("unbind_length", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class UnbindLength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 3)
        for step in x.unbind(dim=1):
            h = self.cell(step, h)
        return h


@case("loop_variable_after", FORM, (rand(3, 4), num(2)), [(rand(3, 4), num(1)), (rand(1, 4), num(6))], ROWS)
class LoopVariableAfter(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        i = -1
        for i in range(int(n)):
            x = x + 1
        return x * i


@case("loop_variable_reassigned", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class LoopVariableReassigned(nn.Module):
    """Writing to the loop variable does not change how often the loop runs."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        for i in range(int(n)):
            x = x + i
            i = i * 3 + 1
            x = x * i / 5
        return x


@case("bound_changes_in_the_loop", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class BoundChangesInTheLoop(nn.Module):
    """The bound is read once, before the loop."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        k = int(n)
        for _ in range(k):
            k = k + 1
            x = x + k
        return x / (k + 1)


@case("for_else", FORM, (rand(3, 4),), [(rand(5, 4) + 5,), (rand(4, 4) - 5,), (rand(1, 4) - 5,)], ROWS)
class ForElse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(4)
        for row in x:
            if row.sum() > 3:
                total = total + row
                break
        else:
            total = total - 1
        return total


@case("comprehension", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class Comprehension(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.score(x[:, t]) * (t + 1) for t in range(x.shape[1])], dim=1)


@case(
    "filtered_comprehension",
    FORM,
    (rand(4, 3),),
    [(rand(6, 3, seed=1),), (rand(2, 3, shift=2.0),), (rand(1, 3, shift=2.0),)],
    ROWS,
)
class FilteredComprehension(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row * 2 for row in x if row.sum() > -1.0])


@case("sum_of_a_generator", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class SumOfAGenerator(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return sum(x[:, t] * 0.5**t for t in range(x.shape[1]))


@case("triangular", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class Triangular(nn.Module):
    """The inner bound is the outer loop's variable."""

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(x.shape[0], 3)
        for t in range(x.shape[1]):
            for s in range(t + 1):
                total = total + x[:, t] * x[:, s]
        return total


@case("range_of_len", FORM, (rand(3, 4),), [(rand(1, 4),), (rand(6, 4),), (rand(2, 4),)], ROWS)
class RangeOfLen(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        for i in range(1, len(x)):
            y[i] = y[i] + 0.5 * y[i - 1]
        return y


@case(
    "range_of_a_difference",
    FORM,
    (rand(2, 7, 3),),
    [(rand(1, 1, 3),), (rand(3, 9, 3),), (rand(2, 4, 3),), (rand(2, 3, 3),)],
    STEPS,
)
class RangeOfADifference(nn.Module):
    """A moving window: runs zero times when the sequence is shorter than it."""

    def forward(self, x: Tensor) -> Tensor:
        best = torch.full((x.shape[0],), -100.0)
        for t in range(x.shape[1] - 3 + 1):
            window = x[:, t : t + 3]
            best = torch.maximum(best, window.sum(dim=(1, 2)))
        return best


@case("constant_range_dynamic_body", FORM, (rand(3, 4),), [(rand(2, 4),), (rand(5, 4) * 9,)], ROWS)
class ConstantRangeDynamicBody(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.depth = depth
        self.scales = [0.5, 0.25, 0.125]

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.depth):  # fixed
            if x.norm() > 4:
                x = x * self.scales[i]
        return x


@case("two_axes", FORM, (rand(3, 4),), [(rand(2, 5),), (rand(1, 1),), (rand(4, 3),)], {"x": {0: "rows", 1: "columns"}})
class TwoAxes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(())
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                if (i + j) % 2 == 0:
                    total = total + x[i, j]
                else:
                    total = total - x[i, j] * 0.5
        return total
