"""A saved `torch.export` program from a captured one."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from deploypipe.capture import Capture
from deploypipe.formats.pt2.read import SERIALIZER
from deploypipe.formats.session import METADATA, errors_only
from deploypipe.formats.zip_seal import seal_zip

seal = seal_zip


def write(capture: Capture, path: Path, metadata: str, probes: Sequence[tuple[Tensor, ...]]) -> str:
    with errors_only(SERIALIZER):
        torch.export.save(capture.program, path, extra_files={METADATA: metadata})
    return ""
