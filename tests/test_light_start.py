"""What only looks, asks or explains starts without torch and what else is heavy: each command in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import clean_environment

HEAVY = {"matplotlib", "onnx", "onnxruntime", "onnxscript", "scipy", "sklearn", "sympy", "torch", "torchvision"}

PROGRAM = """
import json, sys
from deploypipe.cli import main
try:
    main()
except SystemExit as ended:
    print(json.dumps([ended.code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def run(folder: Path, *argv: str) -> tuple[int, set[str]]:
    """The exit code, and the names of the packages that were imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        cwd=folder,
        env=clean_environment(folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code or 0, set(modules)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["models", "--help"], 0),
        (["train", "--help"], 0),
        (["serve", "--help"], 0),
        (["nonsense"], 2),
        (["status", "--port", "1"], 8),
        (["ready", "--port", "1"], 8),
        (["stop", "--port", "1"], 8),
        (["deploy", "cnn-1.0.mar", "--port", "1"], 8),
        (["predict", "digit.png", "--name", "cnn", "--url", "http://127.0.0.1:1"], 8),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_it_starts_light(tmp_path: Path, argv: list[str], code: int) -> None:
    (tmp_path / "digit.png").write_bytes(b"")
    found, modules = run(tmp_path, *argv)
    assert found == code and not HEAVY & modules
