"""What the formats that PyTorch runs have in common. This module travels inside archives."""

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..contract.signature import dtype_name
from ..contract.structure import flatten
from ..contract.tensors import Array, as_dtype
from .processor_time import Overrun, at_most
from .session import DeviceUnavailable, Session


class TorchSession(Session):
    """An artifact that PyTorch itself runs, as `module` on `device`, with at most `threads` CPU threads."""

    runtime = "torch"
    module: Callable[..., Any]
    threads: int | None

    @property
    def provider(self) -> str:  # type: ignore[override]
        return self.device

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        try:
            with inference(), cpu_threads(self.threads):
                outputs = self.module(*(to_tensor(array).to(self.device) for array in arrays))
                return [to_array(torch.as_tensor(leaf)) for leaf in flatten(outputs)[0]]
        except torch.OutOfMemoryError as cause:  # of a GPU; to callers it is what it is on the CPU
            raise MemoryError(str(cause)) from cause

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        caller = threading.get_ident()
        try:
            with at_most(seconds, lambda: _raise_in(caller, Overrun)):
                yield
        finally:
            _raise_in(caller, None)  # the call may have ended by itself meanwhile


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    """Let a thread raise `error` at its next step of Python; None takes back what it has not raised yet."""
    raised = ctypes.py_object() if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


def to_array(tensor: Tensor) -> Array:
    """The tensor's values on the CPU, without a copy where they are there already."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    try:
        return plain.numpy()
    except TypeError:  # bfloat16 and the eight-bit floats, which NumPy knows from ml_dtypes only
        size = plain.element_size()
        return plain.view(getattr(torch, f"int{8 * size}")).numpy().view(as_dtype(dtype_name(plain.dtype)))


def to_tensor(array: Array) -> Tensor:
    """The inverse of `to_array`, without a copy."""
    try:
        return torch.from_numpy(array)
    except TypeError:
        return torch.from_numpy(array.view(f"i{array.dtype.itemsize}")).view(getattr(torch, array.dtype.name))


def as_torch_device(device: str) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError as cause:
        raise DeviceUnavailable(f"{device!r} is no device: {str(cause).splitlines()[0]}") from cause
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(f"device {device!r} was asked for, but torch finds no CUDA device here")
    return chosen


@contextmanager
def inference() -> Iterator[None]:
    """No gradients; and on a GPU no TF32, whose 10 bits of mantissa are another answer than float32's."""
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """At most `count` threads for an operator; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
