"""Every command and code block of the README is run, in its order, in one folder, as a reader would paste it."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import PROJECT, clean_environment

README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    shutil.copyfile(PROJECT / "Makefile", folder / "Makefile")
    return folder


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def bash(script: str, folder: Path) -> str:
    """`set -e`, so that each command of a block must succeed; the `deploypipe` and `python` of this environment."""
    programs = Path(sys.executable).parent
    environment = clean_environment(folder) | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_make_demo_is_the_run_verb() -> None:
    """`make` itself is not run inside a test: its recipes are read."""
    recipes = subprocess.run(["make", "-n", "demo", "test"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "deploypipe run" in recipes.stdout
    assert all(tool in recipes.stdout for tool in ("ruff check", "ruff format --check", "mypy", "pytest"))


def test_every_block_runs(reader: Path) -> None:
    if not free(8080):
        pytest.skip("port 8080, which the README uses, is taken on this machine")
    bash("deploypipe run --data digits --epochs 1", reader)  # what `make demo` does, in short
    try:
        for language, block in BLOCKS:
            if language == "bash" and "make " in block:
                continue
            if language == "bash":
                said = bash(block, reader)
                if "curl" in block:
                    assert '"error"' in said or '"predictions"' in said or '"class"' in said or '"outputs"' in said
                    assert ('"error"' in said) == ("[[1, 2]]" in block), said
            elif language == "python" and (named := re.match(r"# (\w+\.py)\n", block)):
                (reader / named[1]).write_text(block)
            elif language == "python":
                (reader / "block.py").write_text(block)
                said = bash("python block.py", reader)
                assert "passed" in said or said.strip() == "7"
    finally:
        if not free(8080):
            bash("deploypipe stop || true", reader)


def test_the_blocks_are_of_kinds_that_are_known() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python", "text", "json"}
    assert sum(language == "bash" for language, _ in BLOCKS) > 12
