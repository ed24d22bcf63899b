"""What a training takes of torch's own parts: a fused kernel, what a device has, the base of batch normalisation."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm
"""The base class of batch normalisation over any number of axes."""


def move_towards(tensors: Iterable[Tensor], targets: Iterable[Tensor], share: float) -> None:
    """Each of `tensors`, in place, this share of the way to its target, in one kernel for all."""
    torch._foreach_lerp_(list(tensors), list(targets), share)


def cpu_computes_bfloat16() -> bool:
    """Whether this processor has bfloat16 in hardware."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def mps_generator() -> torch.Generator:
    """The generator that code without one of its own draws from on Apple's GPU."""
    return torch.mps._get_default_mps_generator()
