"""The files that a verification leaves beside what it verified. What deploypipe did not write is never overwritten."""

import json
import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

SCHEMA = "deploypipe.parity/2"
MARK = "# Written by `deploypipe verify`, which may overwrite or remove this file."
"""The first line of each script."""
DATA_MARK = "written_by_deploypipe"
"""An array that each data file holds."""


def document_for(subject: Path) -> Path:
    """Where the report of a verification goes: `model.onnx.parity.json`."""
    return free_path(subject.with_name(f"{subject.name}.parity.json"), is_own_document)


def script_for(artifact: Path) -> Path:
    """Where the script goes that reproduces a difference: `model.onnx.reproduce.py`."""
    return free_path(artifact.with_name(f"{artifact.name}.reproduce.py"), is_own_script)


def data_for(script: Path) -> Path:
    """Where a script's data go that are too large for it."""
    return free_path(script.with_suffix(".npz"), is_own_data)


def free_path(path: Path, is_own: Callable[[Path], bool]) -> Path:
    """`path`, or the first of `model-2.json`, `model-3.json`, … where nothing lies that is not deploypipe's own."""
    for number in count(1):
        candidate = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        if not candidate.exists() or is_own(candidate):
            return candidate
    raise AssertionError("there is always another number")


def is_own_document(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and str(document.get("schema", "")).startswith(SCHEMA.partition("/")[0] + "/")


def is_own_script(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n") == MARK
    except (OSError, ValueError):
        return False


def is_own_data(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return f"{DATA_MARK}.npy" in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def remove_own(script: Path) -> None:
    """Remove the script of an earlier verification, and its data."""
    for path, is_own in ((data_for(script), is_own_data), (script, is_own_script)):
        if path.exists() and is_own(path):
            path.unlink()
