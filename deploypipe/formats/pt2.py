"""pt2: a saved `torch.export` program, run by PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .base import METADATA, SEAL, Format, TorchRunner, as_torch_device, errors_only, seal_zip

if TYPE_CHECKING:
    from ..anatomy import Anatomy
    from ..capture import Capture

SERIALIZER = "torch._export.serde.serialize"
"""Warns of each symbol that a program does not need, and of each empty list."""


def write(capture: "Capture", path: Path, metadata: str, probes: Sequence[tuple[Tensor, ...]]) -> str:
    with errors_only(SERIALIZER):
        torch.export.save(capture.program, path, extra_files={METADATA: metadata})
    return ""


class Pt2Runner(TorchRunner):
    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        where = as_torch_device(device)
        extra = {METADATA: "", SEAL: ""}
        with errors_only(SERIALIZER):
            self.program = torch.export.load(path, extra_files=extra)
        if where.type != "cpu":
            from torch.export.passes import move_to_device_pass

            self.program = move_to_device_pass(self.program, where)
        self.module = self.program.module()
        self.threads = threads
        super().__init__(extra[METADATA], extra[SEAL], str(where))


def inspect(path: Path) -> "Anatomy":
    from deploypipe.anatomy.pt2 import Pt2Anatomy

    return Pt2Anatomy(path)


FORMAT = Format(
    name="pt2",
    suffix=".pt2",
    carries="any captured program; runs with torch, without the model's source",
    write=write,
    read=Pt2Runner,
    seal=seal_zip,
    inspect=inspect,
)
