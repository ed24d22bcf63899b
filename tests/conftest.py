"""What tests share: real data where it is there, one small trained run with its artifacts, and the real command."""

import compileall
import gc
import itertools
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import PROJECT, Command, clean_environment, made_once

from deploypipe.contract.run import Run, open_run
from deploypipe.export import export_run, plan_run
from deploypipe.formats import FORMATS
from deploypipe.train import TrainConfig, train

FIRST = ("test_readme.py", "test_run_verb.py", "e2e")
"""Files and folders whose tests wait for servers for the most part, the longest first."""

# The tests' models are tiny: on a busy machine two threads wait for each other longer than one would compute.
torch.set_num_threads(1)

# A server lives for seconds here: Java's second compiler would take as long again and gain nothing.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

# Hundreds of processes import the package, and where PYTHONDONTWRITEBYTECODE is set each would compile it again.
compileall.compile_dir(PROJECT / "deploypipe", quiet=1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Those that wait for servers would else come last and alone.
    items.sort(key=lambda item: next((i for i, name in enumerate(FIRST) if name in item.path.parts), len(FIRST)))
    keep_together(items)
    take_samples(items)


def keep_together(items: list[pytest.Item]) -> None:
    """A file's tests stay in one process, for they share servers and trained models; so do all that share the session's
    one server."""
    for file, its_items in itertools.groupby(items, lambda item: item.path):
        tests = list(its_items)
        shared = "e2e" in file.parts and any("server" in getattr(test, "fixturenames", ()) for test in tests)
        for test in tests:
            test.add_marker(pytest.mark.xdist_group("server" if shared else str(file.relative_to(PROJECT))))


def take_samples(items: list[pytest.Item]) -> None:
    """Of the cases of a `sample`, an ordinary run takes so many, evenly spread; the others are nightly."""
    cases: dict[tuple[Path, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sample") and not item.get_closest_marker("nightly"):
            cases[item.path, getattr(item, "originalname", item.name)].append(item)
    for group in cases.values():
        marker = group[0].get_closest_marker("sample")
        assert marker is not None
        count = min(marker.args[0], len(group))
        taken = {place * len(group) // count for place in range(count)}
        for place, item in enumerate(group):
            if place not in taken:
                item.add_marker(pytest.mark.nightly)


def pytest_collection_finish() -> None:
    """What is imported by now stays, and captures make many objects: the collector took a tenth of their time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the real MNIST: $DEPLOYPIPE_DATA_DIR, or `shared/mnist` beside the project."""
    for folder in (os.environ.get("DEPLOYPIPE_DATA_DIR", ""), PROJECT.parent / "shared" / "mnist"):
        if folder and (Path(folder) / "MNIST" / "raw").is_dir():
            return Path(folder).resolve()
    pytest.skip("the real MNIST is not on this machine")


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`simple-cnn`, trained for two epochs on the digits, with an artifact of every format."""

    def make(folder: Path) -> None:
        run = train(TrainConfig(model="simple-cnn", data="digits", epochs=2, device="cpu"), folder / "run")
        for row in export_run(run, list(FORMATS), plan_run(run)):
            row.proven()

    return open_run(made_once("digits", tmp_path_factory, make) / "run")


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What starts `deploypipe` as a process forked from one that has imported it: see warm_command.py."""
    folder = tmp_path_factory.mktemp("warm")
    path = folder / "socket"
    argv = [sys.executable, str(Path(__file__).with_name("warm_command.py")), "serve", str(path)]
    forks = subprocess.Popen(argv, cwd=folder, env=clean_environment(folder), stdin=subprocess.PIPE)
    while not path.exists():
        assert forks.poll() is None
        time.sleep(0.02)
    yield [sys.executable, "-ISE", argv[1], "run", str(path)]
    forks.communicate(timeout=60)


@pytest.fixture
def deploypipe(tmp_path: Path, warm: list[str]) -> Command:
    """The command in a process of its own, in an empty folder, without network or the user's folders. With variables
    of its own, which may matter while it starts, it is the real program from its first line on."""

    def run(
        *argv: str | Path, check: bool = False, timeout: float = 300, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, "-m", "deploypipe"] if environment else warm
        return subprocess.run(
            [*program, *map(str, argv)],
            cwd=tmp_path,
            env=clean_environment(tmp_path) | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )

    return run
