"""Muon: each step of a matrix made orthogonal (https://kellerjordan.github.io/posts/muon/), for convolutions too."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""From the same: a quintic iteration that brings singular values close to 1 (0.7 to 1.2) within a few steps."""


def orthogonal(matrix: Tensor, steps: int) -> Tensor:
    """About U Vᵀ of the matrix's U S Vᵀ."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, then the orthogonal step. The weights keep the norm of an orthogonal matrix, as in airbench
    (https://github.com/KellerJordan/cifar10-airbench), so that the rate is relative to them."""

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float, steps: int = 3) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "steps": steps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].mul_(group["momentum"]).add_(weight.grad)
                update = weight.grad.add(state["momentum"], alpha=group["momentum"])
                update = orthogonal(update.reshape(len(update), -1), group["steps"]).view(update.shape)
                weight.mul_(len(weight) ** 0.5 / weight.norm()).add_(update, alpha=-group["lr"])
