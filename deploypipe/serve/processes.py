"""A server's processes: known by pid and creation time, ended together, and signals that wait for a safe moment."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import psutil

from deploypipe.errors import ServingError

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Those that this very process started: they must be waited for, or they stay behind as zombies."""


def launch(command: Sequence[str | Path], folder: Path, environment: dict[str, str], output: Path) -> tuple[int, float]:
    """Start `command` in a session of its own, apart from our terminal. Returns its pid and creation time."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[process.pid] = process
    return process.pid, psutil.Process(process.pid).create_time()


def alive(pid: int, created: float) -> bool:
    """Whether the process that was `pid` when it started at `created` still runs; a pid alone may be used again."""
    _reap(pid)
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def exit_code(pid: int) -> int | None:
    """Of a process that this one started and that ended: the code, or minus the signal; else None."""
    _reap(pid)
    process = _children.get(pid)
    return process.returncode if process else None


def members(pid: int, created: float) -> list[psutil.Process]:
    """The process, and all in its session, its orphans too, whoever else ended first."""
    _reap(pid)
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        if leader.create_time() != created:
            return []  # the number belongs to another process now, so the session is gone
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            ours = process.pid == pid or os.getsid(process.pid) == pid
            if ours and process.create_time() >= created and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def activity(found: Iterable[psutil.Process]) -> tuple[float, bool]:
    """The CPU seconds that they used so far, and whether one of them runs, or waits to, at this moment."""
    used, running = 0.0, False
    for process in found:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            used += times.user + times.system
            running |= process.status() == psutil.STATUS_RUNNING
    return used, running


def end(pid: int, created: float, grace: float) -> None:
    """End the process and its session: politely, after `grace` seconds by force. ServingError if something stays."""
    if alive(pid, created):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        _wait_until_gone(pid, created, grace)
    for process in members(pid, created):
        with contextlib.suppress(psutil.Error):
            process.kill()
    if left := _wait_until_gone(pid, created, 10):
        raise ServingError(f"processes {[process.pid for process in left]} do not end", "End them by hand.")
    _children.pop(pid, None)


def _wait_until_gone(pid: int, created: float, seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (left := members(pid, created)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _reap(pid: int) -> None:
    if child := _children.get(pid):
        child.poll()


class Interruptions:
    """SIGINT and SIGTERM, noted instead of obeyed at once, so that nothing is left half done.

    `check` raises for the first one noted: KeyboardInterrupt, or SystemExit(143) for SIGTERM.
    """

    def __init__(self) -> None:
        self.noted = threading.Event()
        self._number = 0

    def note(self, number: int, _frame: FrameType | None) -> None:
        self._number = self._number or number
        self.noted.set()

    def check(self) -> None:
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._number:
            raise SystemExit(128 + self._number)

    def wait(self, seconds: float) -> None:
        """Sleep, and raise as soon as there is a reason to."""
        self.noted.wait(seconds)
        self.check()


@contextlib.contextmanager
def interruptions() -> Iterator[Interruptions]:
    """Note signals while the block runs. In other threads than the main one signals never arrive."""
    noted = Interruptions()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.signal(number, noted.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
