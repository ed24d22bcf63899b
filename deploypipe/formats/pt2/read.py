"""A saved `torch.export` program as a session. This module travels inside archives."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.export.passes import move_to_device_pass

from ..session import METADATA, SEAL, Session, errors_only
from ..torch_session import TorchSession, as_torch_device

SERIALIZER = "torch._export.serde.serialize"
"""The logger that warns of each symbol that a program does not need, and of each empty list."""


class Pt2Session(TorchSession):
    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        where = as_torch_device(device)
        extra = {METADATA: "", SEAL: ""}
        with errors_only(SERIALIZER):
            self.program = torch.export.load(path, extra_files=extra)
        if where.type != "cpu":
            self.program = move_to_device_pass(self.program, where)
        self.module = self.program.module()
        self.threads = threads
        super().__init__(extra[METADATA], extra[SEAL], str(where))


def read(path: Path, device: str, threads: int | None) -> Session:
    return Pt2Session(path, device, threads)


def variants(path: Path, device: str) -> Mapping[str, Callable[[], Session]]:
    return {}
