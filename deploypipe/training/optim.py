"""Optimizers and learning rate schedules, by name."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deploypipe.training.settings import check

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], float]] = {
    # name: class, learning rate when none is given
    "sgd": (torch.optim.SGD, 0.05),
    "adam": (torch.optim.Adam, 2e-3),
    "adamw": (torch.optim.AdamW, 2e-3),
    "adagrad": (torch.optim.Adagrad, 1e-2),
    "adadelta": (torch.optim.Adadelta, 1.0),
}
FUSED = {"cpu": ("sgd", "adam", "adamw", "adagrad"), "cuda": ("sgd", "adam", "adamw")}
"""Where PyTorch has an optimizer's whole step as one kernel."""

Schedule = Callable[[float], float]
"""How much of a training is done (0 to 1) to the share of the peak learning rate."""


def one_cycle(done: float) -> float:
    """Up from 1/25 over the first 30 %, then down to 1/250,000, both along a cosine: torch's OneCycleLR."""
    start, end = 1 / 25, 1 / 250_000
    if done < 0.3:
        return 1 - (1 - start) * (1 + math.cos(math.pi * done / 0.3)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2


SCHEDULES: dict[str, Schedule] = {
    "one-cycle": one_cycle,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "step": lambda done: 0.1 ** int(done * 3),
    "constant": lambda done: 1.0,
}


@dataclass(frozen=True)
class OptimizerConfig:
    name: str | None = None
    """None: the model's own ("adam", "sgd" for the regression)."""
    lr: float | None = None
    """The peak of the schedule. None: the optimizer's own default."""
    momentum: float = 0.9
    """SGD only."""
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check(
            self.name in (None, *OPTIMIZERS),
            f"optimizer.name is {self.name!r}, must be one of {', '.join(OPTIMIZERS)}",
        )
        check(self.lr is None or self.lr > 0, f"optimizer.lr is {self.lr}, must be > 0")
        check(self.momentum >= 0, f"optimizer.momentum is {self.momentum}, must not be negative")
        check(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, must not be negative")


@dataclass(frozen=True)
class ScheduleConfig:
    name: str = "one-cycle"

    def __post_init__(self) -> None:
        check(self.name in SCHEDULES, f"schedule.name is {self.name!r}, must be one of {', '.join(SCHEDULES)}")


def build(config: OptimizerConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `module`, which is on its device by now. "peak" is a group's rate where the schedule is 1."""
    assert config.name is not None
    kind, default = OPTIMIZERS[config.name]
    options: dict[str, Any] = {"lr": config.lr or default, "weight_decay": config.weight_decay}
    if config.name == "sgd":
        options["momentum"] = config.momentum
    if config.name in FUSED.get(next(module.parameters()).device.type, ()):
        options["fused"] = True
    optimizer = kind(module.parameters(), **options)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Each group's learning rate to this share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
