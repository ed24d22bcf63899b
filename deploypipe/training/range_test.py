"""The learning rate range test (https://arxiv.org/abs/1506.01186, section 3.3): the rate grows from step to step, and
where the loss falls fastest is a good peak for a schedule."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from deploypipe.data import Dataset
from deploypipe.training.config import TrainConfig
from deploypipe.training.loop import Loop

LOWEST, HIGHEST = 1e-6, 10.0
STEPS = 100
MEMORY = 0.9
"""Decay of the running mean of the loss."""
DIVERGED = 3.0
"""The test ends when the loss is this many times its smallest value: higher rates are of no use."""


@dataclass(frozen=True)
class RangeTest:
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """The smoothed loss at each rate."""
    suggestion: float
    """The learning rate to use as the peak of the schedule."""

    def to_json(self) -> dict[str, Any]:
        return {"suggestion": self.suggestion, "learning_rates": list(self.rates), "losses": list(self.losses)}


def range_test(config: TrainConfig, dataset: Dataset, device: torch.device) -> RangeTest:
    """`config` as a training uses it. Its network is trained for `STEPS` steps and thrown away."""
    loop = Loop(dataclasses.replace(config, validation=0.0, patience=0, epochs=1.0), dataset, device)
    peak = loop.optimizer.param_groups[0]["peak"]
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for step in range(STEPS):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        loop.step = step
        loss, _ = loop.learn(loop.batch(step), rate / peak)
        mean = MEMORY * mean + (1 - MEMORY) * loss.item()
        smoothed = mean / (1 - MEMORY ** (step + 1))
        if not math.isfinite(smoothed) or smoothed > DIVERGED * min([smoothed, *losses]):
            break
        rates.append(rate)
        losses.append(smoothed)
    return RangeTest(tuple(rates), tuple(losses), _steepest(rates, losses))


def _steepest(rates: list[float], losses: list[float]) -> float:
    """Where the loss falls fastest over the logarithm of the rate, before its smallest value."""
    lowest = losses.index(min(losses))
    falls = [losses[i - 1] - losses[i + 1] for i in range(1, lowest)]
    best = rates[1 + falls.index(max(falls))] if falls else rates[lowest] / 10
    return float(f"{best:.1e}")
