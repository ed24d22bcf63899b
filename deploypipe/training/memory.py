"""Out of memory, answered by a batch size that fits."""

import torch

from deploypipe.training.loop import Loop

SAID = ("can't allocate memory", "not enough memory", "bad_alloc", "could not create a memory")
"""By PyTorch's CPU allocator on Linux and on Windows, by the C++ library, by oneDNN."""


def is_out_of_memory(cause: BaseException) -> bool:
    known = isinstance(cause, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(cause) for words in SAID)


def batch_that_fits(loop: Loop) -> int | None:
    """The largest half of a half of the batch that a step was really done with, which spoils the loop; None where one
    example is too much. Not to be called while the error that led here is handled: that holds what it failed on."""
    size = min(loop.config.batch_size, len(loop.training)) // 2
    while size:
        if loop.device.type == "cuda":
            torch.cuda.empty_cache()
        if _fits(loop, size):
            return size
        size //= 2
    return None


def _fits(loop: Loop, size: int) -> bool:
    try:
        loop.learn(torch.arange(size, device=loop.device), share=0.0)
    except (RuntimeError, MemoryError):  # with nothing left, libraries fail in words of their own
        return False
    return True
