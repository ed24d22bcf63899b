"""Out of memory, answered by a batch size that fits."""

import torch

from deploypipe.training.loop import Loop

MESSAGES = ("can't allocate memory", "not enough memory", "bad_alloc", "could not create a memory")
"""What PyTorch's CPU allocator says on Linux and on Windows, the C++ library, and oneDNN."""


def is_out_of_memory(cause: BaseException) -> bool:
    known = isinstance(cause, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(cause) for words in MESSAGES)


def batch_that_fits(loop: Loop) -> int | None:
    """The batch size is halved until a step is really done with it; None where even one example is too much.

    These steps spoil the loop. Do not call this inside the handler of the error: its traceback keeps alive the tensors
    that did not fit."""
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
