"""TorchScript: scripted, never traced, run by PyTorch (Python or C++).

PyTorch 2.10 deprecated TorchScript and says so at each call; the format is still what many servers load, so its
FutureWarnings are silenced here, in the one file that uses it.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .base import METADATA, SEAL, Format, TorchRunner, as_torch_device, seal_zip

if TYPE_CHECKING:
    from ..anatomy import Anatomy
    from ..capture import Capture


@contextmanager
def _deprecated() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is", DeprecationWarning)
        yield


def write(capture: "Capture", path: Path, metadata: str, probes: Sequence[tuple[Tensor, ...]]) -> str:
    from deploypipe.dynamic_to_static.torchscript import to_torchscript

    with _deprecated():
        module, how = to_torchscript(capture.module, capture.static, probes)
        torch.jit.save(module, path, _extra_files={METADATA: metadata})
    return how


class TorchScriptRunner(TorchRunner):
    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        where = as_torch_device(device)
        extra = {METADATA: "", SEAL: ""}
        with _deprecated():
            self.module = torch.jit.load(path, map_location=where, _extra_files=extra)  # type: ignore[no-untyped-call]
        self.threads = threads
        super().__init__(extra[METADATA], extra[SEAL], str(where))

    def run(self, *inputs: Tensor) -> list[Tensor]:
        try:
            return super().run(*inputs)
        except RuntimeError as cause:
            _, interpreted, trace = str(cause).partition("Traceback of TorchScript")
            if not interpreted:
                raise
            # What went wrong is in the last line, below a traceback.
            raise RuntimeError(trace.strip().splitlines()[-1]) from cause


def inspect(path: Path) -> "Anatomy":
    from deploypipe.anatomy.torchscript import TorchScriptAnatomy

    return TorchScriptAnatomy(path)


FORMAT = Format(
    name="torchscript",
    suffix=".pt",
    carries="what torch.jit.script takes, and any captured program; loads in C++ and in older servers",
    write=write,
    read=TorchScriptRunner,
    seal=seal_zip,
    inspect=inspect,
)
