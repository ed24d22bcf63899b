"""What the README names to measure with starts; training's and serving's comparisons have tests of their own."""

import subprocess
from pathlib import Path

import pytest
from support import PROJECT, clean_environment

FOLDER = PROJECT / "benchmarks"
SCRIPTS = [*sorted(FOLDER.glob("[cp]a*/*.py")), FOLDER / "memory.py", FOLDER / "startup.py", FOLDER / "zoo.py"]


@pytest.mark.nightly
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_benchmark_starts(script: Path, tmp_path: Path, warm: list[str]) -> None:
    done = subprocess.run(
        [*warm, "--script", script, "--help"],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr
