"""What loops carry: tuples, ints, floats, flags, things that start as None."""
# ruff: noqa: SIM108 -- written as users write it

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, num, rand

FORM = "loop state"
LENGTHS = [(rand(1, 1, 3),), (rand(3, 8, 3),), (rand(2, 2, 3),)]
COUNTS = [(rand(3, 4), num(0)), (rand(1, 4), num(1)), (rand(4, 4), num(6))]


@case("lstm_state", FORM, (rand(2, 5, 3),), [*LENGTHS, (rand(2, 0, 3),)], STEPS)
class LstmState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = (torch.zeros(x.shape[0], 4), torch.zeros(x.shape[0], 4))
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return state[0]


@case("two_layer_lstm", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class TwoLayerLstm(nn.Module):
    """A list of states, one a layer, replaced element by element."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(3, 4), nn.LSTMCell(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        states = [(torch.zeros(batch, 4), torch.zeros(batch, 4)) for _ in self.cells]  # fixed
        outputs = []
        for t in range(x.size(1)):
            inp = x[:, t]
            for i, cell in enumerate(self.cells):  # fixed
                states[i] = cell(inp, states[i])
                inp = states[i][0]
            outputs.append(inp)
        return torch.stack(outputs, dim=1)


@case("state_starts_as_none", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class StateStartsAsNone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for t in range(x.shape[1]):
            if h is None:
                h = torch.zeros(x.shape[0], 3)
            h = self.cell(x[:, t], h)
        return h


@case("python_counter_and_tensor", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class PythonCounterAndTensor(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        count = 0
        total = 0.0
        for t in range(x.shape[1]):
            if x[:, t].sum() > 0:
                count += 1
                total = total + x[:, t].mean()
        if count > 0:
            total = total / count
        return x.sum(dim=1) + total


@case("zero_becomes_tensor", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class ZeroBecomesTensor(nn.Module):
    """Accumulates from the Python int 0, so the state changes type in the first pass."""

    def forward(self, x: Tensor) -> Tensor:
        total = 0
        for t in range(x.shape[1]):
            total = total + x[:, t] * 2
        return total


@case("decaying_rate", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class DecayingRate(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        rate = 0.1
        target = x.mean(dim=0)
        for i in range(int(n)):
            x = x - rate * (x - target)
            if i % 2 == 1:
                rate *= 0.5
        return x + rate


@case("fibonacci", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class Fibonacci(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        a, b = 0, 1
        for _ in range(int(n)):
            a, b = b, a + b
        return x * a + b


@case(
    "flag_switches_mode",
    FORM,
    (rand(2, 6, 3),),
    [(rand(1, 1, 3),), (rand(3, 9, 3),), (rand(2, 4, 3, shift=1.0),)],
    STEPS,
)
class FlagSwitchesMode(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        seen = False
        total = torch.zeros(x.shape[0], 3)
        for t in range(x.shape[1]):
            if seen:
                total = total + x[:, t]
            else:
                total = total - x[:, t]
            if x[:, t].max() > 1:
                seen = not seen
        return total


@case("integer_tensor_state", FORM, (rand(6, 4),), [(rand(1, 4),), (rand(7, 4),), (rand(3, 4),)], ROWS)
class IntegerTensorState(nn.Module):
    """Longest run of rows with a positive sum: int64 state."""

    def forward(self, x: Tensor):
        run = torch.tensor(0)
        best = torch.tensor(0)
        for row in x:
            if row.sum() > 0:
                run = run + 1
            else:
                run = torch.tensor(0)
            best = torch.maximum(best, run)
        return best, run


@case("dict_state", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class DictState(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        state = {"fast": torch.zeros(x.shape[0], 3), "slow": torch.zeros(x.shape[0], 3)}
        for t in range(x.shape[1]):
            state["fast"] = 0.5 * state["fast"] + x[:, t]
            state["slow"] = 0.9 * state["slow"] + state["fast"] * 0.1
        return state["fast"] - state["slow"]


@dataclass
class Moments:
    mean: Tensor
    spread: Tensor
    count: int


@case("dataclass_state", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class DataclassState(nn.Module):
    """Welford's running variance, the moments in a dataclass that is replaced on each step."""

    def forward(self, x: Tensor) -> Tensor:
        m = Moments(torch.zeros(x.shape[0], 3), torch.zeros(x.shape[0], 3), 0)
        for t in range(x.shape[1]):
            count = m.count + 1
            delta = x[:, t] - m.mean
            mean = m.mean + delta / count
            m = Moments(mean, m.spread + delta * (x[:, t] - mean), count)
        return m.spread / max(m.count, 1)


@case(
    "variables_born_in_the_loop",
    FORM,
    (rand(3, 4), num(2)),
    [(rand(3, 4), num(1)), (rand(1, 4), num(2)), (rand(2, 4), num(5))],
    ROWS,
)
class VariablesBornInTheLoop(nn.Module):
    """`last` exists only once the loop has run; the user knows that it always does."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        for i in range(int(n)):
            last = torch.sin(x * (i + 1))
            x = x + last
        return x + last


@case("nested_tuples", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class NestedTuples(nn.Module):
    def forward(self, x: Tensor, n: Tensor):
        state = ((x, 0.5), x * 0)
        for _ in range(int(n)):
            (a, decay), b = state
            state = ((a * decay, decay * 0.9), b + a)
        return state[0][0] + state[0][1], state[1]


@case(
    "boolean_tensor_state",
    FORM,
    (rand(5, 4),),
    [(rand(1, 4),), (rand(7, 4),), (rand(3, 4, shift=5.0),), (rand(4, 4, shift=-6.0),)],
    ROWS,
)
class BooleanTensorState(nn.Module):
    def forward(self, x: Tensor):
        alive = torch.ones(4, dtype=torch.bool)
        for row in x:
            alive = alive & (row > -1)
            if not alive.any():
                break
        return alive


@case("state_untouched_by_the_loop", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class StateUntouchedByTheLoop(nn.Module):
    """Aliases: two names for one tensor go into the loop, and a third comes out."""

    def forward(self, x: Tensor, n: Tensor):
        y = x
        z = y
        for _ in range(int(n)):
            y = x + 1
            x = z
        return x, y


@case("promotion_across_steps", FORM, (rand(3, 4), num(2)), COUNTS, ROWS)
class PromotionAcrossSteps(nn.Module):
    """A Python int that becomes a float on the way."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        scale = 1
        for _ in range(int(n)):
            scale = scale / 2
        return x * scale
