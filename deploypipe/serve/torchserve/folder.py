"""The folder of one server: its files, its lock, and who owns its record."""

import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from deploypipe.contract.archive import Archive
from deploypipe.contract.server import KEYS, RECORD, Server, recorded
from deploypipe.errors import ServingError
from deploypipe.serve import processes

KEPT_LOGS = 2
"""Of how many earlier servers the logs are kept."""


@dataclass(frozen=True)
class Layout:
    """The files of one server."""

    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / RECORD

    @property
    def properties(self) -> Path:
        return self.folder / "config.properties"

    @property
    def logging(self) -> Path:
        return self.folder / "log4j2.xml"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def console(self) -> Path:
        return self.logs / "console.log"

    @property
    def keys(self) -> Path:
        return self.folder / KEYS


def rewrite(server: Server, archives: Sequence[Archive]) -> Server:
    """Record, whole or not at all, that the running `server` serves these; of versions of a name the default first.
    ServingError when it is another server's record by now, or none's."""
    current = recorded(server.folder)
    if current is None or current.process != server.process:
        raise ServingError(f"the server at {server.url} was stopped meanwhile")
    changed = dataclasses.replace(server, archives=tuple(archives))
    changed.write()
    return changed


@contextlib.contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """One change at a time to what runs in one folder: a start, a deployment, or the end of a stop. ServingError when
    another one is still under way after `wait` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=wait, poll_interval=0.05)
    except Timeout as cause:
        raise ServingError(f"another start or deployment is under way in {folder}") from cause
    try:
        yield
    finally:
        lock.release()


def clean(server: Server) -> None:
    """Remove what a server that is gone left behind, all but its logs, while holding the lock. Where another server has
    followed it in its folder, the files there are that one's, and stay."""
    layout = Layout(server.folder)
    for process in processes.members(server.process):  # workers that outlived a killed server
        with contextlib.suppress(Exception):
            process.kill()
    current = recorded(server.folder)
    if current is None or current.process != server.process:
        return
    shutil.rmtree(server.scratch, ignore_errors=True)
    layout.keys.unlink(missing_ok=True)
    layout.record.unlink(missing_ok=True)


def fresh_logs(layout: Layout) -> None:
    """An empty folder for logs; those of the servers before, which may say why one crashed, are kept as `logs.1` and
    `logs.2`."""
    ages = [layout.logs.with_name(f"{layout.logs.name}.{age}") for age in range(1, KEPT_LOGS + 1)]
    shutil.rmtree(ages[-1], ignore_errors=True)
    for older, newer in itertools.pairwise([*reversed(ages), layout.logs]):
        if newer.is_dir():
            newer.rename(older)
    layout.logs.mkdir(parents=True)
