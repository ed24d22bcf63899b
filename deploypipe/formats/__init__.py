"""The formats of artifacts, a folder each. A folder here that defines `FORMAT` is a format; nothing else knows of it.

format.py        what a format is, and the names that its files share
session.py       an artifact loaded from its file: arrays in, arrays out; travels inside archives
processor_time.py how a call that never ends is ended; travels inside archives
torch_session.py what the formats that PyTorch runs have in common; travels inside archives
runner.py        a session as PyTorch's users see it: tensors in, what the eager module returns out
zip_seal.py      the seal in files that torch writes
reading.py       from a path to a runner, an inspection or the facts of a sidecar
inspection.py    what is in an artifact's file
aten.py          what PyTorch's operators do in train mode
onnx/            ONNX, run by ONNX Runtime
pt2/             saved torch.export programs
torchscript/     TorchScript

A format's folder has `read.py` (a session from a file; travels inside archives), `write.py` (a file from a captured
program) and `inspect.py` (the inside of a file); nothing of it is imported before it is used.
"""

import pkgutil
from importlib import import_module
from pathlib import Path

from deploypipe.errors import UsageError
from deploypipe.formats.format import Format

FORMATS: dict[str, Format] = {}

for _module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
    if _module.ispkg:
        _format: Format = import_module(f"{__name__}.{_module.name}").FORMAT
        FORMATS[_format.name] = _format


def format_named(name: str) -> Format:
    """UsageError for a name that no format has."""
    if name not in FORMATS:
        raise UsageError(f"no format {name!r}", f"There are: {', '.join(FORMATS)}, all.")
    return FORMATS[name]


def format_of(path: Path) -> Format:
    """The format whose suffix `path` has. UsageError for a suffix that no format has."""
    for candidate in FORMATS.values():
        if path.suffix == candidate.suffix:
            return candidate
    known = ", ".join(f"{entry.suffix} ({entry.name})" for entry in FORMATS.values())
    raise UsageError(f"{path} has no artifact's suffix", f"Known: {known}.")
