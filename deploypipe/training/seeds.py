"""Every random number of a training as a function of its seed and of what the number is for.

Nothing is drawn from a stream that something else may have drawn from before: a step that is done again, after a
resume or in another process, draws the same.
"""

import hashlib

import torch
from torch import Tensor

from deploypipe.torch_compat.kernels import mps_generator


def derived(seed: int, purpose: str, number: int = 0) -> int:
    """A seed for one purpose. Mixed by a hash, because generators take near seeds for near states (and PyTorch's on
    the CPU takes 32 bits only, all of which differ here)."""
    text = f"{seed} {purpose} {number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def permutation(count: int, seed: int, purpose: str, number: int = 0) -> Tensor:
    """0 to `count`-1 shuffled, int64 [count] on the CPU, the same whatever device trains."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derived(seed, purpose, number)))


def generators_of(device: torch.device) -> list[torch.Generator]:
    """Those that code without a generator of its own (dropout) draws from on `device`."""
    found = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        found.append(torch.cuda.default_generators[device.index or torch.cuda.current_device()])
    if device.type == "mps":
        found.append(mps_generator())
    return found
