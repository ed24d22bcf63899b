"""`while` loops: on a value, on a Python number that a value made, forever with a way out."""

import torch
from torch import Tensor, nn

from ._case import ROWS, case, num, rand

FORM = "while"
SCALES = [(rand(3, 4) * 100,), (rand(2, 4) * 0.01,), (rand(1, 4) * 2.5,)]


@case("while_true_break", FORM, (rand(3, 4),), SCALES, ROWS)
class WhileTrueBreak(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while True:  # fixed
            if x.norm() < 1:
                break
            x = x / 2
        return x


@case("while_with_counter", FORM, (rand(3, 4),), SCALES, ROWS)
class WhileWithCounter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        steps = 0
        while x.abs().max() > 1 and steps < 5:
            x = x * 0.7
            steps += 1
        return x * 10 + steps


@case(
    "newton_square_root",
    FORM,
    (rand(3).abs() + 0.5,),
    [(rand(4).abs() + 0.5,), (torch.ones(2),), (rand(1).abs() + 50,)],
    {"x": {0: "n"}},
)
class NewtonSquareRoot(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        guess = torch.ones_like(x)
        while (guess * guess - x).abs().max() > 1e-2:
            guess = 0.5 * (guess + x / guess)
        return guess


@case(
    "power_iteration",
    FORM,
    (rand(4, 4),),
    [
        (torch.diag(torch.tensor([5.0, 1.0, 0.5, 0.1])),),
        (torch.eye(4),),
        (torch.diag(torch.tensor([4.0, 3.0, 0.0, 1.0])),),
    ],
)
class PowerIteration(nn.Module):
    def forward(self, matrix: Tensor) -> Tensor:
        v = torch.ones(4) / 2
        change = torch.tensor(1.0)
        for _ in range(50):
            if change < 1e-3:
                break
            new = matrix @ v
            new = new / new.norm()
            change = (new - v).norm()
            v = new
        return v @ matrix @ v


@case("collatz", FORM, (rand(3, 4), num(6)), [(rand(2, 4), num(1)), (rand(1, 4), num(7)), (rand(5, 4), num(2))], ROWS)
class Collatz(nn.Module):
    """A loop whose whole state is Python ints."""

    def forward(self, x: Tensor, start: Tensor) -> Tensor:
        n = int(start)
        steps = 0
        while n != 1:
            if n % 2 == 0:
                n //= 2
            else:
                n = 3 * n + 1
            steps += 1
        return x * steps


@case("gcd", FORM, (num(12), num(18)), [(num(12), num(18)), (num(7), num(0)), (num(35), num(10)), (num(9), num(3))])
class Gcd(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        while b != 0:
            a, b = b, a % b
        return a


@case("while_not_done", FORM, (rand(3, 4),), SCALES, ROWS)
class WhileNotDone(nn.Module):
    """A Python flag that a value sets."""

    def forward(self, x: Tensor) -> Tensor:
        done = False
        rounds = 0
        while not done:
            x = x * 0.5
            rounds += 1
            if x.abs().max() < 1 or rounds == 20:
                done = True
        return x + rounds


@case(
    "while_continue",
    FORM,
    (rand(3, 4), num(5)),
    [(rand(3, 4), num(5)), (rand(2, 4), num(0)), (rand(1, 4), num(1))],
    ROWS,
)
class WhileContinue(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        i = 0
        while i < n:
            i += 1
            if i % 2 == 0:
                continue
            x = x + i
        return x


@case(
    "countdown_in_place",
    FORM,
    (rand(3, 4), num(3)),
    [(rand(3, 4), num(3)), (rand(2, 4), num(0)), (rand(1, 4), num(1))],
    ROWS,
)
class CountdownInPlace(nn.Module):
    """The loop counter is itself a tensor, and the condition is its truth."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        n = n.clone()
        total = torch.zeros_like(x)
        while n:
            total += x * n
            n -= 1
        return total


@case("while_two_conditions", FORM, (rand(3, 4),), [(rand(3, 4) + 90,), (rand(2, 4) - 90,), (rand(1, 4) * 0.1,)], ROWS)
class WhileTwoConditions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rate = 1.0
        while x.max() > 2 or x.min() < -2:
            x = x - rate * x.sign()
            rate *= 1.5
        return x


@case(
    "python_float_state",
    FORM,
    (rand(3, 4), num(0.3)),
    [(rand(3, 4), num(0.3)), (rand(2, 4), num(5.0)), (rand(1, 4), num(0.75))],
    ROWS,
)
class PythonFloatState(nn.Module):
    def forward(self, x: Tensor, budget: Tensor) -> Tensor:
        left = budget.item()
        cost = 0.5
        weight = 0.0
        while left > 0:
            left -= cost
            weight += cost * 2
        return x * weight + left


@case(
    "while_over_rows", FORM, (rand(4, 3),), [(rand(1, 3),), (rand(6, 3, shift=1.0),), (rand(5, 3, shift=-4.0),)], ROWS
)
class WhileOverRows(nn.Module):
    """Walks down the rows until one is negative enough."""

    def forward(self, x: Tensor) -> Tensor:
        i = 0
        total = torch.zeros(3)
        while i < x.shape[0] and x[i].sum() > -4:
            total = total + x[i]
            i += 1
        return total


@case("while_else", FORM, (rand(3, 4),), [(rand(3, 4) * 50,), (rand(2, 4) * 0.01,), (rand(1, 4) * 2,)], ROWS)
class WhileElse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        tries = 0
        while x.norm() > 1:
            x = x / 2
            tries += 1
            if tries == 3:
                break
        else:
            x = x + 100
        return x
