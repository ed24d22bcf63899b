"""A packed model in a Python process of its own, which has nothing of this one and nothing of deploypipe but what is
packed: it must load and answer its samples, as it must in a server's worker."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from deploypipe.contract.archive import CODE, MANIFEST
from deploypipe.errors import PackageError

_LONGEST = 300.0
"""Seconds: the readers of TorchScript and pt2 load PyTorch first."""

_PROGRAM = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
from {code}.{reader} import read
from {code}.serve.service.served_model import ServedModel
ServedModel(folder, json.loads((folder / "{manifest}").read_text(encoding="utf-8")), read)
"""


def check_fresh_start(archive: Path, reader: str) -> None:
    """PackageError where what is packed in `archive`, read by its module `reader`, does not prove itself alone."""
    program = _PROGRAM.format(code=CODE, reader=reader, manifest=MANIFEST)
    with tempfile.TemporaryDirectory(prefix="deploypipe-") as folder:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        command = [sys.executable, "-P", "-c", program, folder]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=_LONGEST, text=True)
        except subprocess.TimeoutExpired as cause:
            raise PackageError(f"what is packed did not load within {_LONGEST:.0f} s in a fresh process") from cause
    if done.returncode:
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said else f"it ended with {done.returncode}, without a word"
        raise PackageError(
            f"what is packed does not answer its samples in a fresh process: {reason}",
            "Write the artifact anew with `deploypipe export`.",
        )
