"""Optimizers and learning rate schedules, by name."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deploypipe.training.muon import Muon
from deploypipe.training.settings import check

RATES = {"sgd": 0.05, "adam": 2e-3, "adamw": 2e-3, "adagrad": 1e-2, "adadelta": 1.0, "muon": 0.1}
"""Each optimizer's learning rate when none is given."""
FUSED = {"cpu": ("sgd", "adam", "adamw", "adagrad"), "cuda": ("sgd", "adam", "adamw")}
"""Where PyTorch has an optimizer's whole step as one kernel."""


def straight(part: float) -> float:
    return 1 - part


def cosine(part: float) -> float:
    return (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True)
class Schedule:
    """Up to the peak and down from it, by shapes that fall from 1 at 0 to 0 at 1."""

    down: Callable[[float], float]
    up: Callable[[float], float] = straight
    warmup: float = 0.0
    start: float = 0.0
    final: float = 0.0


SCHEDULES = {
    "one-cycle": Schedule(cosine, cosine, 0.3, 1 / 25, 1 / 250_000),  # torch's OneCycleLR
    "linear": Schedule(straight),
    "cosine": Schedule(cosine),
    "step": Schedule(lambda part: 0.1 ** int(part * 3)),
    "constant": Schedule(lambda part: 1.0),
}


@dataclass(frozen=True)
class OptimizerConfig:
    name: str | None = None
    """None: the model's own ("adam", "sgd" for the regression)."""
    lr: float | None = None
    """The peak of the schedule. None: the optimizer's own default."""
    momentum: float = 0.9
    """SGD and Muon."""
    nesterov: bool = False
    """SGD; Muon's always is."""
    beta1: float = 0.9
    beta2: float = 0.999
    """Adam and AdamW: how slowly the means of the gradient and of its square move."""
    weight_decay: float = 0.0
    adam_lr: float | None = None
    """Muon trains matrices and kernels; this is the peak for all else and the last layer, which Adam trains. None:
    Adam's own default."""

    def __post_init__(self) -> None:
        check(self.name in (None, *RATES), f"optimizer.name is {self.name!r}, must be one of {', '.join(RATES)}")
        check(self.lr is None or self.lr > 0, f"optimizer.lr is {self.lr}, must be > 0")
        check(self.adam_lr is None or self.adam_lr > 0, f"optimizer.adam_lr is {self.adam_lr}, must be > 0")
        for name in ("beta1", "beta2"):
            check(0 <= getattr(self, name) < 1, f"optimizer.{name} is {getattr(self, name)}, must be in [0, 1)")
        check(self.momentum > 0 or not self.nesterov, "optimizer.nesterov needs a momentum")
        check(self.momentum >= 0, f"optimizer.momentum is {self.momentum}, must not be negative")
        check(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, must not be negative")


@dataclass(frozen=True)
class ScheduleConfig:
    name: str = "one-cycle"
    warmup: float | None = None
    """Fraction of the training in which the rate rises to its peak."""
    start: float | None = None
    final: float | None = None
    """Where it begins and where it ends, as fractions of the peak. None, of all three: the schedule's own."""

    def __post_init__(self) -> None:
        check(self.name in SCHEDULES, f"schedule.name is {self.name!r}, must be one of {', '.join(SCHEDULES)}")
        for name in ("warmup", "start", "final"):
            value = getattr(self, name)
            check(value is None or 0 <= value <= 1, f"schedule.{name} is {value}, must be in [0, 1]")

    def share(self, done: float) -> float:
        """Of the peak rate, when this fraction of the training is done (0 to 1)."""
        own = SCHEDULES[self.name]
        warmup, start, final = (
            getattr(own if getattr(self, name) is None else self, name) for name in ("warmup", "start", "final")
        )
        if done < warmup:
            return float(1 - (1 - start) * own.up(done / warmup))
        return float(final + (1 - final) * own.down((done - warmup) / (1 - warmup) if done > warmup else 0.0))


class Together:
    """Optimizers of disjoint weights, as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        for group in self.param_groups:
            group["peak"] = group["lr"]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def set_rate(self, share: float) -> None:
        """Each group's learning rate to this share of its peak."""
        for group in self.param_groups:
            group["lr"] = group["peak"] * share

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def build(config: OptimizerConfig, module: nn.Module) -> Together:
    """The optimizer of `module`, which is on its device by now."""
    assert config.name is not None
    weights = list(module.parameters())
    rate = config.lr or RATES[config.name]
    if config.name != "muon":
        return Together(_one(config.name, rate, config, weights))
    # The last layer's rows are classes, not directions.
    matrices = [weight for weight in weights if weight.ndim > 1][:-1]
    rest = [weight for weight in weights if not any(weight is matrix for matrix in matrices)]
    adam = _one("adam", config.adam_lr or RATES["adam"], config, rest)
    return Together(*([Muon(matrices, rate, config.momentum)] if matrices else []), adam)


def _one(name: str, rate: float, config: OptimizerConfig, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": rate, "weight_decay": config.weight_decay}
    if name in FUSED.get(weights[0].device.type, ()):
        options["fused"] = True
    betas = (config.beta1, config.beta2)
    match name:
        case "sgd":
            return torch.optim.SGD(weights, momentum=config.momentum, nesterov=config.nesterov, **options)
        case "adam":
            return torch.optim.Adam(weights, betas=betas, **options)
        case "adamw":
            return torch.optim.AdamW(weights, betas=betas, **options)
        case "adagrad":
            return torch.optim.Adagrad(weights, **options)
    return torch.optim.Adadelta(weights, **options)
