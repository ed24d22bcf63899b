"""The mean of the weights on their way, each step counting less the longer ago it is."""

import torch
from torch import Tensor, nn


class Average:
    """Of everything in the module's state that is a fraction (batch normalisation's statistics too)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        # The module changes these in place, so they stay the ones.
        self._live = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
        self.weights = {name: tensor.clone() for name, tensor in self._live.items()}

    def update(self, step: int) -> None:
        """After `step` steps, from 1. Early ones count less, or the first weights would stay in it for long."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.weights.values()), list(self._live.values()), 1 - decay)

    def restore(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)
