"""A script module from a captured program: the module scripted where that works, else printed from the program."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from deploypipe.capture import Capture
from deploypipe.formats.session import METADATA
from deploypipe.formats.torchscript.printer import to_torchscript
from deploypipe.formats.torchscript.read import deprecation_silenced
from deploypipe.formats.zip_seal import seal_zip

seal = seal_zip


def write(capture: Capture, path: Path, metadata: str, probes: Sequence[tuple[Tensor, ...]]) -> str:
    with deprecation_silenced():
        module, how = to_torchscript(capture.module, capture.static, probes)
        torch.jit.save(module, path, _extra_files={METADATA: metadata})
    return how
