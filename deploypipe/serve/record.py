"""The record of a server: what was started, in the server's own folder, so that any later process finds it."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import platformdirs

from deploypipe.contract.archive import Archive
from deploypipe.contract.records import from_document, to_document
from deploypipe.errors import ServingError, UsageError, first_line
from deploypipe.files import read_json, write_json
from deploypipe.serve import processes
from deploypipe.serve.configuration import Layout

SCHEMA = "deploypipe.server/1"


@dataclass(frozen=True)
class Server:
    """A server that was started, as its record says."""

    folder: Path
    """Its own: configuration, logs, record."""
    pid: int
    created: float
    """The process's creation time, which tells it from a later one of the same number."""
    host: str
    port: int
    management_port: int
    metrics_port: int
    store: Path
    scratch: Path
    """Its temporary files and its workers' sockets."""
    tokens: bool
    """Requests need a token; see `tokens_of`."""
    archives: tuple[Archive, ...]
    """Of several versions of a name the default comes first."""

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return f"http://{host}:{self.port}"

    @property
    def management_url(self) -> str:
        return f"http://127.0.0.1:{self.management_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"


def default_folder(port: int) -> Path:
    return platformdirs.user_state_path("deploypipe") / "servers" / str(port)


def recorded(folder: Path) -> Server | None:
    """The server whose record lies in `folder`, running or not; None where there is none."""
    path = Layout(folder).record
    if not path.exists():
        return None
    remedy = f"Remove {folder} if no server of it runs."
    document = read_json(path, SCHEMA, ServingError, remedy)
    try:
        return from_document({**document, "folder": str(folder)}, Server)
    except ValueError as cause:
        raise ServingError(f"{path} is damaged: {first_line(cause)}", remedy) from cause


def put(server: Server) -> None:
    """Put the record into the server's folder, whole or not at all."""
    write_json(Layout(server.folder).record, {"schema": SCHEMA, **to_document(server)})


def started_here(url: str) -> Server | None:
    """The record of the server at `url`, if `serve` started it on this machine: another host's is not ours to know.
    UsageError for what is no address."""
    try:
        address = httpx.URL(url)
        host, port = address.host, address.port
    except (httpx.InvalidURL, ValueError) as cause:
        raise UsageError(f"{url!r} is no address of a server: {first_line(cause)}") from cause
    found = recorded(default_folder(port)) if port else None
    return found if found and host in {found.host, "127.0.0.1", "localhost", "::1"} else None


def tokens_of(server: Server) -> dict[str, str]:
    """The tokens that requests need, by what they are for: "inference", "management". Empty where none are."""
    if not server.tokens:
        return {}
    try:
        keys = json.loads(Layout(server.folder).keys.read_text(encoding="utf-8"))
        return {kind: keys[kind]["key"] for kind in ("inference", "management")}
    except (OSError, ValueError, KeyError):
        return {}  # not written yet


def authorization(server: Server, kind: str) -> dict[str, str]:
    """The header that requests of a kind need: "inference" or "management"; none where tokens are off."""
    tokens = tokens_of(server)
    return {"authorization": f"Bearer {tokens[kind]}"} if kind in tokens else {}


def rewrite(server: Server, archives: Sequence[Archive]) -> Server:
    """Record, whole or not at all, that the running `server` serves these; of versions of a name the default first.
    ServingError when it is another server's record by now, or none's."""
    current = recorded(server.folder)
    if current is None or (current.pid, current.created) != (server.pid, server.created):
        raise ServingError(f"the server at {server.url} was stopped meanwhile")
    changed = dataclasses.replace(server, archives=tuple(archives))
    put(changed)
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
