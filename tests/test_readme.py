"""Every command and code block of the README is run, in its order, in one folder, as a reader would paste it; so is
every one of each page in docs/."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import PROJECT, clean_environment

PAGES = sorted((PROJECT / "docs").glob("*.md"))
Blocks = list[tuple[str, str]]


def blocks_of(page: Path) -> Blocks:
    """Language and text of each."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


README = blocks_of(PROJECT / "README.md")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    shutil.copyfile(PROJECT / "Makefile", folder / "Makefile")
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, warm: list[str]) -> Path:
    """A folder for the path with a `deploypipe` that starts at once."""
    folder = tmp_path_factory.mktemp("programs")
    program = folder / "deploypipe"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(warm)} "$@"\n')
    program.chmod(0o755)
    return folder


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def bash(script: str, folder: Path, *programs: Path) -> str:
    """`set -e`, so that each command of a block must succeed; the `python` of this environment, and its `deploypipe`
    unless one of the folders `programs` has another."""
    path = os.pathsep.join([*map(str, programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = clean_environment(folder) | {"PATH": path}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_make_demo_is_the_run_verb() -> None:
    """`make` itself is not run inside a test: its recipes are read."""
    recipes = subprocess.run(["make", "-n", "demo"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "deploypipe run" in recipes.stdout


@pytest.mark.parametrize(("goal", "installs"), [("demo", ["."]), ("test", ["'.[dev]'"])])
def test_a_goal_installs_what_it_needs_and_only_once(goal: str, installs: list[str], tmp_path: Path) -> None:
    """From nothing, and again where the marks say that it was done."""
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(PROJECT / file, tmp_path / file)

    def recipes() -> str:
        done = subprocess.run(["make", "-n", goal], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    first = recipes()
    assert re.findall(r"pip install .* --editable (\S+)", first) == installs
    (tmp_path / ".venv").mkdir()
    for mark in re.findall(r"\.venv/\.ready\S*", first):
        (tmp_path / mark).touch()
    assert "pip install" not in recipes()


def test_make_test_checks_everything() -> None:
    recipes = subprocess.run(["make", "-n", "test"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert all(tool in recipes.stdout for tool in ("ruff check", "ruff format --check", "mypy", "pytest"))


def run_blocks(blocks: Blocks, folder: Path, programs: Path) -> None:
    """In their order; a block whose first line is a comment with a file's name is written there for those after it."""
    for language, block in blocks:
        if named := re.match(r"# (\w+\.(?:py|toml))\n", block):
            (folder / named[1]).write_text(block)
        elif language == "bash" and "make " not in block:
            said = bash(block, folder, programs)
            if "curl" in block:
                assert '"error"' in said or '"predictions"' in said or '"class"' in said or '"outputs"' in said
                assert ('"error"' in said) == ("[[1, 2]]" in block), said
        elif language == "python":
            (folder / "block.py").write_text(block)
            said = bash("python block.py", folder)
            assert "passed" in said or said.strip() == "7"


def test_every_block_runs(reader: Path, programs: Path) -> None:
    if not free(8080):
        pytest.skip("port 8080, which the README uses, is taken on this machine")
    bash("deploypipe run --data digits --epochs 1", reader, programs)  # what `make demo` does, in short
    try:
        run_blocks(README, reader, programs)
    finally:
        if not free(8080):
            bash("deploypipe stop || true", reader)


LONG = ("parity", "scaling", "training")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.nightly] if page.stem in LONG else [], id=page.stem) for page in PAGES],
)
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path, programs: Path) -> None:
    """Blocks that need several machines, or hours, are `text`."""
    run_blocks(blocks_of(page), tmp_path, programs)


@pytest.mark.parametrize("page", [PROJECT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_the_blocks_are_of_kinds_that_are_known(page: Path) -> None:
    assert {language for language, _ in blocks_of(page)} <= {"bash", "python", "text", "json", "toml", "yaml", "nginx"}


def test_the_readme_has_its_commands_in_blocks() -> None:
    assert sum(language == "bash" for language, _ in README) > 12
