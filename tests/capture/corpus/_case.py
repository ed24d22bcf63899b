"""What a case is, and the helpers that the family files share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

CASES: dict[str, "Case"] = {}
ROWS = {"x": {0: "batch"}}
STEPS = {"x": {0: "batch", 1: "length"}}

Module = TypeVar("Module", bound=type[nn.Module])


@dataclass(frozen=True)
class Case:
    """One dynamic model and how to exercise it."""

    name: str
    build: Callable[[], nn.Module]
    example: tuple[Tensor, ...]
    probes: list[tuple[Tensor, ...]]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    """argument name -> {axis: symbol}"""
    form: str = ""
    """The family, as the tables show it."""

    def reference(self) -> nn.Module:
        """The module whose outputs an artifact must return: the same weights, in eval mode.

        `build` may return a module left in train mode; what is exported is its inference form.
        """
        return self.build().eval()


def case(
    name: str,
    form: str,
    example: tuple[Tensor, ...],
    probes: Sequence[tuple[Tensor, ...]],
    dynamic: dict[str, dict[int, str]] | None = None,
) -> Callable[[Module], Module]:
    """Register the decorated module class as a case."""

    def register(cls: Module) -> Module:
        def build() -> nn.Module:
            torch.manual_seed(0)
            module = cls()
            return module if getattr(cls, "keep_train", False) else module.eval()

        if name in CASES:
            raise ValueError(f"two cases are named {name}")
        CASES[name] = Case(name, build, example, list(probes), dynamic or {}, form)
        return cls

    return register


def rand(*shape: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Normal values, the same at every import."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + shift


def ints(high: int, *shape: int, seed: int = 0) -> Tensor:
    """Integers in [0, high), the same at every import."""
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def num(value: float | bool) -> Tensor:
    """A tensor of no dimensions."""
    return torch.tensor(value)
