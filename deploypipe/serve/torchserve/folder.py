"""The folder of one server: its files, its lock, and who owns its record."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploypipe.contract.archive import Archive
from deploypipe.contract.server import KEYS, RECORD, Server, recorded
from deploypipe.errors import ServingError
from deploypipe.serve import processes


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
    def home(self) -> Path:
        """What TorchServe takes for its home folder."""
        return self.folder / "home"

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
    if current is None or (current.pid, current.created) != (server.pid, server.created):
        raise ServingError(f"the server at {server.url} was stopped meanwhile")
    changed = dataclasses.replace(server, archives=tuple(archives))
    changed.write()
    return changed


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One change at a time to what runs in one folder: a start, or a deployment. ServingError for a second one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            raise ServingError(f"another start or deployment is under way in {folder}") from cause
        yield


def clean(server: Server) -> None:
    """Remove what a server that is gone left behind, all but its logs."""
    layout = Layout(server.folder)
    for process in processes.members(server.pid, server.created):  # workers that outlived a killed server
        with contextlib.suppress(Exception):
            process.kill()
    shutil.rmtree(server.scratch, ignore_errors=True)
    layout.keys.unlink(missing_ok=True)
    layout.record.unlink(missing_ok=True)
