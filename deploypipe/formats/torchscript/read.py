"""A script module as a session. This module travels inside archives."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ...contract.tensors import Array
from ..session import METADATA, SEAL, Session
from ..torch_session import TorchSession, as_torch_device


@contextmanager
def deprecation_silenced() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is", DeprecationWarning)
        yield


class TorchScriptSession(TorchSession):
    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        where = as_torch_device(device)
        extra = {METADATA: "", SEAL: ""}
        with deprecation_silenced():
            self.module = torch.jit.load(path, map_location=where, _extra_files=extra)  # type: ignore[no-untyped-call]
        self.threads = threads
        super().__init__(extra[METADATA], extra[SEAL], str(where))

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        try:
            return super().run(arrays)
        except (RuntimeError, torch.jit.Error) as cause:
            _, interpreted, trace = str(cause).partition("Traceback of TorchScript")
            if not interpreted:
                raise
            # What went wrong is in the last line, below a traceback.
            raise RuntimeError(trace.strip().splitlines()[-1]) from cause

    @property
    def stoppable(self) -> bool:
        """Its interpreter takes no step of Python, so nothing ends a loop of it."""
        return self.module.inlined_graph.findNode("prim::Loop", True) is None  # type: ignore[attr-defined]


def read(path: Path, device: str, threads: int | None) -> Session:
    return TorchScriptSession(path, device, threads)


def variants(path: Path, device: str) -> Mapping[str, Callable[[], Session]]:
    return {}
