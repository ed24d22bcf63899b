"""Lists that grow in a loop."""
# ruff: noqa: RUF005 -- written as users write it

import torch
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, num, rand

FORM = "lists that grow"
LENGTHS = [(rand(1, 1, 3),), (rand(3, 8, 3),), (rand(2, 2, 3),)]


@case("append_then_cat", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class AppendThenCat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pieces = []
        for t in range(x.shape[1]):
            pieces.append(x[:, t : t + 1] * t)
        return torch.cat(pieces, dim=1)


@case("last_of_the_list", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class LastOfTheList(nn.Module):
    """The list is read from the end while it grows."""

    def forward(self, x: Tensor) -> Tensor:
        states = [torch.zeros(x.shape[0], 3)]
        for t in range(x.shape[1]):
            states.append(torch.tanh(states[-1] + x[:, t]))
        return states[-1]


@case("seeded_and_stacked", FORM, (rand(2, 5, 3),), [*LENGTHS, (rand(2, 0, 3),)], STEPS)
class SeededAndStacked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        states = [x.new_ones(x.shape[0], 3)]
        for t in range(x.shape[1]):
            states.append(states[-1] * 0.5 + x[:, t])
        return torch.stack(states)


@case("two_lists", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class TwoLists(nn.Module):
    def forward(self, x: Tensor):
        lows, highs = [], []
        for t in range(x.shape[1]):
            lows.append(x[:, t].min(dim=1).values)
            highs.append(x[:, t].max(dim=1).values)
        return torch.stack(lows, 1), torch.stack(highs, 1)


@case(
    "append_sometimes",
    FORM,
    (rand(4, 3),),
    [(rand(7, 3, shift=0.5),), (rand(2, 3, shift=3.0),), (rand(1, 3, shift=3.0),)],
    ROWS,
)
class AppendSometimes(nn.Module):
    """How many rows are kept depends on the values."""

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i in range(x.shape[0]):
            if x[i].sum() > 0:
                kept.append(x[i])
        return torch.stack(kept)


@case("append_until_break", FORM, (rand(3, 4),), [(rand(3, 4) * 50,), (rand(2, 4) * 0.01,), (rand(1, 4) * 3,)], ROWS)
class AppendUntilBreak(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        norms = [x.norm()]
        while norms[-1] > 1:
            x = x / 2
            norms.append(x.norm())
        return torch.stack(norms)


@case(
    "append_one_of_two", FORM, (rand(4, 3),), [(rand(7, 3),), (rand(2, 3, shift=3.0),), (rand(1, 3, shift=-3.0),)], ROWS
)
class AppendOneOfTwo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = []
        for row in x:
            if row.mean() > 0:
                out.append(row)
            else:
                out.append(-row * 2)
        return torch.stack(out, dim=0)


@case("reversed_list", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class ReversedList(nn.Module):
    """Generalised advantages: built back to front, then turned round."""

    def forward(self, x: Tensor) -> Tensor:
        out = []
        running = torch.zeros(x.shape[0], 3)
        for t in reversed(range(x.shape[1])):
            running = x[:, t] + 0.95 * running
            out.append(running)
        return torch.stack(out[::-1], dim=1)


@case("insert_in_front", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class InsertInFront(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = []
        running = torch.zeros(x.shape[0], 3)
        for t in range(x.shape[1] - 1, -1, -1):
            running = torch.maximum(x[:, t], running - 0.1)
            out.insert(0, running)
        return torch.stack(out, dim=1)


@case(
    "length_of_the_list",
    FORM,
    (rand(4, 3),),
    [(rand(7, 3),), (rand(2, 3, shift=3.0),), (rand(1, 3, shift=-3.0),)],
    ROWS,
)
class LengthOfTheList(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        positive = []
        for row in x:
            if row.sum() > 0:
                positive.append(row)
        if len(positive) == 0:
            return torch.zeros(3)
        return torch.stack(positive).sum(dim=0) / len(positive)


@case("concatenated_lists", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class ConcatenatedLists(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = []
        for t in range(x.shape[1]):
            out += [x[:, t], -x[:, t]]
        out = out + [torch.zeros(x.shape[0], 3)]
        return torch.stack(out, dim=1)


@case("list_of_numbers", FORM, (rand(3, 4),), [(rand(3, 4) * 20,), (rand(2, 4) * 0.01,), (rand(1, 4) * 3,)], ROWS)
class ListOfNumbers(nn.Module):
    """Python floats collected, then made a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        history = []
        for _ in range(4):  # fixed
            history.append(x.abs().max().item())
            if history[-1] > 1:
                x = x / 4
        return torch.tensor(history)


@case("list_of_pairs", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class ListOfPairs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pairs = []
        for t in range(x.shape[1]):
            pairs.append((x[:, t].sum(dim=1), x[:, t].prod(dim=1)))
        sums = torch.stack([a for a, _ in pairs], dim=1)
        products = torch.stack([b for _, b in pairs], dim=1)
        return sums * products


@case(
    "index_the_list",
    FORM,
    (rand(2, 5, 3), num(2)),
    [(rand(1, 1, 3), num(0)), (rand(3, 8, 3), num(7)), (rand(2, 2, 3), num(-1))],
    STEPS,
)
class IndexTheList(nn.Module):
    """A finished list indexed by a tensor's value."""

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        states = []
        h = torch.zeros(x.shape[0], 3)
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t])
            states.append(h)
        return states[int(which)]


@case("two_steps_back", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class TwoStepsBack(nn.Module):
    """A second-order recurrence that reads the list at -1 and -2."""

    def forward(self, x: Tensor) -> Tensor:
        y = [x[:, 0], x[:, 0] * 0.5]
        for t in range(x.shape[1]):
            y.append(0.6 * y[-1] - 0.2 * y[-2] + x[:, t])
        return torch.stack(y[2:], dim=1)


@case("module_list_collects", FORM, (rand(3, 4),), [(rand(2, 4),), (rand(5, 4) * 9,)], ROWS)
class ModuleListCollects(nn.Module):
    """A list of a known length: its loop is over modules, what goes in depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for layer in self.layers:  # fixed
            x = layer(x)
            if x.norm() > 2.6:
                x = x / x.norm()
            features.append(x)
        return torch.cat(features, dim=-1)


@case("iterate_the_list", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class IterateTheList(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        forward_states = []
        h = torch.zeros(x.shape[0], 3)
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t])
            forward_states.append(h)
        total = torch.zeros(x.shape[0], 3)
        for state in forward_states:
            total = total * 0.5 + state
        return total


@case("overwrite_list_element", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class OverwriteListElement(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = []
        for t in range(x.shape[1]):
            out.append(x[:, t])
        out[0] = out[0] * 10
        out[-1] = out[-1] + 1
        return torch.stack(out, dim=1)
