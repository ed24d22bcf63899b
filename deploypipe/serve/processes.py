"""A server's processes: recognised, watched and ended together; and signals that wait for a safe moment."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

from deploypipe.contract.server import ProcessIdentity
from deploypipe.errors import ServingError

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Those that this very process started: they must be waited for, or they stay behind as zombies."""


def launch(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], output: Path
) -> ProcessIdentity:
    """Start `command` in a session of its own, apart from our terminal."""
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
    found = identity_of(process.pid)
    assert found is not None  # until it is waited for, its number is its own
    return found


def identity_of(pid: int) -> ProcessIdentity | None:
    """Of the process that has this number now; None where there is none.

    On Linux from the ticks between the boot and its start: psutil's creation time is a time of the wall clock, which
    steps, and a server of before the step would be taken for gone.
    """
    try:
        if sys.platform != "linux":
            return ProcessIdentity(pid, "", psutil.Process(pid).create_time())
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, psutil.Error):
        return None
    fields = stat.rpartition(")")[2].split()  # those after the name, which may hold anything: the third of proc(5) on
    return ProcessIdentity(pid, boot, int(fields[22 - 3]))


def alive(process: ProcessIdentity) -> bool:
    """Whether this very process still runs; a number alone may be used again."""
    _reap(process.pid)
    try:
        same = identity_of(process.pid) == process
        return same and psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def exit_code(pid: int) -> int | None:
    """Of a process that this one started and that ended: the code, or minus the signal; else None."""
    _reap(pid)
    process = _children.get(pid)
    return process.returncode if process else None


def members(leader: ProcessIdentity) -> list[psutil.Process]:
    """The process, and all in its session, its orphans too, whoever else ended first."""
    _reap(leader.pid)
    if identity_of(leader.pid) not in (None, leader):
        return []  # the number belongs to another process now, so the session is gone
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if leader.pid not in (process.pid, os.getsid(process.pid)):
                continue
            this = identity_of(process.pid)
            later = this is not None and this.boot == leader.boot and this.started >= leader.started
            if later and process.status() != psutil.STATUS_ZOMBIE:
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


def end(process: ProcessIdentity, grace: float) -> None:
    """End the process and its session: politely, after `grace` seconds by force. ServingError if something stays."""
    if alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        _wait_until_gone(process, grace)
    for member in members(process):
        with contextlib.suppress(psutil.Error):
            member.kill()
    if left := _wait_until_gone(process, 10):
        raise ServingError(f"processes {[member.pid for member in left]} do not end", "End them by hand.")
    _children.pop(process.pid, None)


def _wait_until_gone(process: ProcessIdentity, seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (left := members(process)) and time.monotonic() < deadline:
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
        self._at_once = False

    def note(self, number: int, _frame: FrameType | None) -> None:
        self._number = self._number or number
        self.noted.set()
        if self._at_once:
            self.check()

    @contextlib.contextmanager
    def obeyed(self) -> Iterator[None]:
        """While the block runs, which leaves nothing half done, a signal is obeyed at once."""
        self.check()
        before, self._at_once = self._at_once, True
        try:
            yield
        finally:
            self._at_once = before

    def check(self) -> None:
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._number:
            raise SystemExit(128 + self._number)

    def wait(self, seconds: float) -> None:
        """Sleep, and raise as soon as there is a reason to."""
        self.noted.wait(seconds)
        self.check()


_current: list[Interruptions] = []


@contextlib.contextmanager
def interruptions() -> Iterator[Interruptions]:
    """Note signals while the block runs; a block inside it gets the same notes. In other threads than the main one
    signals never arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield Interruptions()
        return
    if _current:
        yield _current[0]
        return
    noted = Interruptions()
    _current.append(noted)
    before = {number: signal.signal(number, noted.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        _current.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
