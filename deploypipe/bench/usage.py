"""What a server's processes take of the machine while it is measured."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Usage:
    front_end_cores: float
    """Of the process that was started: TorchServe's JVM."""
    worker_cores: float
    """Of all the others."""
    memory: int
    """Bytes resident of all of them, the larger of begin and end; pages that processes share count for each."""

    @property
    def cores(self) -> float:
        return self.front_end_cores + self.worker_cores


class UsageMeter:
    """Usage of the process `pid` and its descendants, from here to `read`. One that ends meanwhile is not counted."""

    def __init__(self, pid: int) -> None:
        self._leader = pid
        self._members = family(pid)
        self._seconds = _cpu_seconds(self._members)
        self._memory = _memory(self._members)
        self._begun = time.perf_counter()

    def read(self) -> Usage:
        wall, now = time.perf_counter() - self._begun, _cpu_seconds(self._members)
        used = {pid: (seconds - self._seconds[pid]) / wall for pid, seconds in now.items() if pid in self._seconds}
        front_end = used.pop(self._leader, 0.0)
        return Usage(front_end, sum(used.values()), max(self._memory, _memory(self._members)))


def memory_held(pid: int) -> int:
    """Bytes resident of a process and its descendants; pages that they share count for each."""
    return _memory(family(pid))


def family(pid: int) -> list[psutil.Process]:
    """The process, first, and all that it started; none where it has ended."""
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.Error:
        return []


def _cpu_seconds(members: Sequence[psutil.Process]) -> dict[int, float]:
    found = {}
    for process in members:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def _memory(members: Sequence[psutil.Process]) -> int:
    found = 0
    for process in members:
        with contextlib.suppress(psutil.Error):
            found += process.memory_info().rss
    return found
