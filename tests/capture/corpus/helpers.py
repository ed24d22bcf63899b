"""Control flow that is not in `forward` itself: methods, submodules, functions, closures."""
# ruff: noqa: SIM108, E731 -- written as users write it

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, num, rand

FORM = "helpers and submodules"
BOTH_SIGNS = [(rand(5, 4, shift=2.0),), (rand(2, 4, shift=-2.0),), (rand(1, 4, shift=1.0),)]
LENGTHS = [(rand(1, 1, 3),), (rand(3, 8, 3),), (rand(2, 2, 3),)]
CEILING = 2.5


def squash(x: Tensor, limit: float = 1.0) -> Tensor:
    if x.abs().max() > limit:
        return x * (limit / x.abs().max())
    return x


def halve_until(x: Tensor, *, bound: float, factor: float = 0.5) -> Tensor:
    while x.norm() > bound:
        x = x * factor
    return x


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@case("method_that_branches", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class MethodThatBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def sign_of(self, x: Tensor) -> float:
        if x.sum() > 9:
            return 1.0
        return -1.0

    def transform(self, x: Tensor, scale: float = 2.0) -> Tensor:
        if x.mean() > 0:
            x = x * scale
        else:
            x = self.proj(x)
        return x * self.sign_of(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(x) + self.transform(-x, scale=0.5)


@case("module_level_functions", FORM, (rand(3, 4),), [(rand(3, 4) * 9,), (rand(2, 4) * 0.01,), (rand(1, 4),)], ROWS)
class ModuleLevelFunctions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = squash(x, CEILING)
        x = halve_until(x, bound=1.5)
        return squash(x)


@case("local_function", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class LocalFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        centre = x.mean()

        def adjust(y: Tensor, gain: float = 3.0) -> Tensor:
            if y.sum() > centre:
                return y * gain
            return y - centre

        return adjust(x) + adjust(x - 1, gain=0.5)


@case("closure_from_init", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class ClosureFromInit(nn.Module):
    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()

        def gate(x: Tensor) -> Tensor:
            if x.mean() > threshold:
                return x
            return torch.zeros_like(x)

        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) + 1


@case("lambda_with_ternary", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class LambdaWithTernary(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pick = lambda y: y.exp() if y.sum() < 0 else y.log1p().nan_to_num()
        return pick(x) + pick(-x)


@case("decorated_and_static", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class DecoratedAndStatic(nn.Module):
    @staticmethod
    def flip(x: Tensor) -> Tensor:
        if x.sum() < 0:
            return -x
        return x

    @torch.no_grad()
    def scale(self, x: Tensor) -> Tensor:
        if x.max() > 2:
            return x / 2
        return x

    @logged
    def shift(self, x: Tensor) -> Tensor:
        if x.min() < -1:
            return x + 1
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.shift(self.scale(x)) + self.flip(x)


class Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor, strength: float = 1.0) -> Tensor:
        if x.norm() > 3:
            return torch.sigmoid(self.linear(x)) * x * strength
        return x


class Repeat(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        for _ in range(int(times)):
            x = self.inner(x)
        return x


@case(
    "dynamic_submodules",
    FORM,
    (rand(3, 4), num(2)),
    [(rand(3, 4) * 4, num(3)), (rand(2, 4) * 0.1, num(1)), (rand(1, 4) * 9, num(0))],
    ROWS,
)
class DynamicSubmodules(nn.Module):
    """A module whose forward branches, inside one whose forward loops."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Repeat(Gate(4))
        self.gate = Gate(4)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        return self.gate(self.block(x, times), strength=2.0)


@case("sequential_of_dynamic", FORM, (rand(3, 4),), [(rand(3, 4) * 9,), (rand(2, 4) * 0.1,), (rand(1, 4),)], ROWS)
class SequentialOfDynamic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), Gate(4), nn.ReLU(), Gate(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Base(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.act(x)
        return x

    def act(self, x: Tensor) -> Tensor:
        return x.relu()


@case("inherited_forward", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class InheritedForward(Base):
    def act(self, x: Tensor) -> Tensor:
        return x.tanh() if x.max() > 3 else x * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


@case("shared_submodule", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class SharedSubmodule(nn.Module):
    """The same weights used in both branches, after them, and tied to another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)
        self.other.weight = self.shared.weight

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            x = self.shared(x)
        else:
            x = self.other(self.shared(x))
        return self.shared(x)


@case("functional_calls", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class FunctionalCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.act = functools.partial(F.leaky_relu, negative_slope=0.2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight)
        if y.mean() > 0:
            y = self.act(y)
        else:
            y = F.gelu(y)
        return F.normalize(y, dim=-1)


@case(
    "starred_arguments",
    FORM,
    (rand(3, 4), rand(3, 4, seed=1)),
    [(rand(2, 4) + s, rand(2, 4, seed=2)) for s in (3.0, -3.0)] + [(rand(1, 4), rand(1, 4) + 3)],
    {"x": {0: "batch"}, "y": {0: "batch"}},
)
class StarredArguments(nn.Module):
    def largest(self, *tensors: Tensor, **options: float) -> Tensor:
        best = tensors[0]
        for candidate in tensors[1:]:  # fixed
            if candidate.sum() > best.sum() + options.get("margin", 0.0):
                best = candidate
        return best

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.largest(x, y, x * y, margin=0.5)


@case("helper_returns_flag", FORM, (rand(2, 5, 3),), LENGTHS, STEPS)
class HelperReturnsFlag(nn.Module):
    """A helper that returns a Python bool made from a value, used as a condition in a loop."""

    def is_large(self, x: Tensor) -> bool:
        return bool(x.abs().max() > 1.5)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(x.shape[0], 3)
        for t in range(x.shape[1]):
            if self.is_large(x[:, t]):
                total = total + x[:, t]
        return total


@case("property_and_attribute", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class PropertyAndAttribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = {"scale": 2.0, "mode": "relu"}
        self.linear = nn.Linear(4, 4)

    @property
    def width(self) -> int:
        return self.linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > self.width / 2:
            x = x * self.config["scale"]
        if self.config["mode"] == "relu":  # fixed
            x = x.relu()
        return getattr(self, "linear")(x)  # noqa: B009


@case("function_as_argument", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class FunctionAsArgument(nn.Module):
    def apply_if(self, x: Tensor, function) -> Tensor:
        if x.mean() > 0:
            return function(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.apply_if(x, torch.sqrt).nan_to_num()
        return self.apply_if(x - 1, lambda y: squash(y, 0.5))


@case("expert_by_index", FORM, (rand(3, 4),), [(rand(2, 4, seed=s),) for s in range(6)] + [(rand(1, 4),)], ROWS)
class ExpertByIndex(nn.Module):
    """A module picked from a list by a value."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(4, 3)
        self.experts = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        choice = int(self.router(x.mean(dim=0)).argmax())
        return self.experts[choice](x)
