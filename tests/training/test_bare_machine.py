"""The training loop needs torch and numpy alone: a machine with a GPU often has nothing else.

filelock comes with torch.
"""

import subprocess
import sys
from pathlib import Path

from support import clean_environment

ROOMS = "loop", "config", "device", "distributed"
SCRIPT = f"""
import sys
import torch, numpy
before = {{name.partition(".")[0] for name in sys.modules}}
import {", ".join(f"deploypipe.training.{room}" for room in ROOMS)}, deploypipe.evaluate
from deploypipe.data import idx, load_dataset
after = {{name.partition(".")[0] for name in sys.modules}}
print(*sorted(after - before - set(sys.stdlib_module_names) - {{"deploypipe", "filelock"}}))
"""


def test_the_training_loop_imports_no_other_package(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=clean_environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
