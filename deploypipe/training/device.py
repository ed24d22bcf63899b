"""Which device a training runs on, and whether its kernels must be deterministic."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from deploypipe.errors import UsageError
from deploypipe.torch_compat.kernels import cpu_computes_bfloat16


def resolve_device(name: str) -> torch.device:
    """ "auto" is the GPU where there is one. UsageError for a device that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name.partition(":")[0], False):
        usable = ", ".join(device for device, usable in there.items() if usable)
        raise UsageError(f"device {name!r} is not there", f"Usable here: {usable}.")
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise UsageError(f"{name!r} is no device", "Examples: cpu, cuda, cuda:1.") from cause
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} is not there", f"There are {torch.cuda.device_count()} GPUs, from cuda:0.")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """ "auto" is bfloat16 where the device computes it in hardware."""
    if name != "auto":
        return name
    if device.type == "cuda":
        there = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        there = device.type == "cpu" and cpu_computes_bfloat16()
    return "bfloat16" if there else "float32"


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """https://docs.pytorch.org/docs/stable/notes/randomness.html: within the block an operation without a
    deterministic kernel is an error. cuBLAS reads its variable when it is first used."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
