"""What test modules import: the project's folder, and how to run its command in a clean environment."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

PROJECT = Path(__file__).parent.parent

Command = Callable[..., "subprocess.CompletedProcess[str]"]
"""The `deploypipe` fixture: arguments in, the finished process out."""


def clean_environment(home: Path) -> dict[str, str]:
    """This process's environment with a home of its own, so that nothing of the user's is read or written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "DEPLOYPIPE_"))}
    return kept | {"HOME": str(home), "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], None]) -> Path:
    """A folder filled by `make`, by one process for all that run tests side by side. Whoever changes it copies it."""
    shared = factory.getbasetemp() if "PYTEST_XDIST_WORKER" not in os.environ else factory.getbasetemp().parent
    folder, made = shared / name, shared / f"{name}.made"
    with FileLock(f"{folder}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed half way
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


HEAVY = {"matplotlib", "onnx", "onnxruntime", "onnxscript", "scipy", "sklearn", "sympy", "torch", "torchvision"}
"""Packages that a command which only looks, asks or explains must not import."""

_WATCHED = """
import json, sys
from deploypipe.cli import main
try:
    main()
except SystemExit as ended:
    print(json.dumps([ended.code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def imported_by(folder: Path, *argv: str) -> tuple[int, set[str]]:
    """The command in a fresh process at `folder`: its exit code, and the packages that it had imported at its end."""
    command = [sys.executable, "-c", _WATCHED, *argv]
    done = subprocess.run(command, cwd=folder, env=clean_environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code or 0, set(modules)
