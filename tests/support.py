"""What test modules import: the project's folder, and how to run its command in a clean environment."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).parent.parent

Command = Callable[..., "subprocess.CompletedProcess[str]"]
"""The `deploypipe` fixture: arguments in, the finished process out."""


def clean_environment(home: Path) -> dict[str, str]:
    """This process's environment with a home of its own, so that nothing of the user's is read or written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "DEPLOYPIPE_"))}
    return kept | {"HOME": str(home), "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
