"""Optimizers, by name."""

from typing import Any

import torch
from torch import nn

from deploypipe.training.config import RATES, OptimizerConfig
from deploypipe.training.muon import Muon

FUSED = {"cpu": ("sgd", "adam", "adamw", "adagrad"), "cuda": ("sgd", "adam", "adamw")}
"""Where PyTorch has an optimizer's whole step as one kernel."""


class Together:
    """Several optimizers, each of other weights, used as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        for group in self.param_groups:
            group["peak"] = group["lr"]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def set_rate(self, share: float) -> None:
        """Set each group's learning rate to this share of its peak."""
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
    # The rows of the last layer belong to single classes: making their steps orthogonal would mix them.
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
