"""Which files a worker counts in. Travels inside archives.

A worker holds the lowest slot that no living one holds. Who follows a dead worker goes on with its files: counters
never go back, and the files are no more than there were workers at once.
"""

import itertools
import os
from pathlib import Path

from filelock import FileLock, Timeout

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's own name for the folder."""

_LASTING = ("counter", "histogram")
_LIVING = ("gauge_livesum", "gauge_livemax")
"""What only a living worker says; see prometheus_client's multiprocess mode for the names."""

_ROOM = bytes(1 << 16)
"""What prometheus_client maps at first."""

_held: list[FileLock] = []


def take_slot(folder: Path) -> int:
    """A slot, held until this process ends, with its files in place."""
    folder.mkdir(parents=True, exist_ok=True)
    for slot in itertools.count():
        if lock := _lock(folder, slot):
            _held.append(lock)
            break
    for kind in (*_LASTING, *_LIVING):
        if kind in _LIVING or not _file(folder, kind, slot).exists():
            _blank(_file(folder, kind, slot))
    return slot


def forget_dead(folder: Path) -> None:
    """Blank what workers that are dead said of themselves."""
    for path in folder.glob("*.lock"):
        slot = int(path.stem)
        if lock := _lock(folder, slot):
            for kind in _LIVING:
                _blank(_file(folder, kind, slot))
            lock.release()


def _lock(folder: Path, slot: int) -> FileLock | None:
    lock = FileLock(folder / f"{slot}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _file(folder: Path, kind: str, slot: int) -> Path:
    return folder / f"{kind}_{slot}.db"


def _blank(path: Path) -> None:
    """Zeros, written in place and never as a hole: where the disk is full, a write to a hole of a mapped file kills."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        file.write(_ROOM)
