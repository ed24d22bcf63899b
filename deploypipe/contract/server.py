"""The record of a server: what was started, in the server's own folder, so that any later process finds it."""

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from deploypipe.contract.archive import Archive
from deploypipe.contract.records import from_document, to_document
from deploypipe.errors import ServingError, UsageError, first_line
from deploypipe.files import read_json, write_json

SCHEMA = "deploypipe.server/2"
RECORD = "server.json"
KEYS = "key_file.json"
"""Where TorchServe writes its tokens: in its working folder, which is the server's own."""


@dataclass(frozen=True)
class ProcessIdentity:
    """What tells a process from every other one, of the same number too, whatever becomes of the wall clock."""

    pid: int
    boot: str
    """The boot of the system that it runs under; "" where the system gives boots no name."""
    started: float
    """Clock ticks from that boot to its start; without a name for the boot, seconds since 1970."""


@dataclass(frozen=True)
class Server:
    """A server that was started, as its record says."""

    folder: Path
    """Its own: configuration, logs, record."""
    process: ProcessIdentity
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
    def pid(self) -> int:
        return self.process.pid

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

    def write(self) -> None:
        """Put the record into the server's folder, whole or not at all."""
        write_json(self.folder / RECORD, {"schema": SCHEMA, **to_document(self)})


def default_folder(port: int) -> Path:
    """Where the server on `port` keeps its files, unless it was given a folder."""
    return platformdirs.user_state_path("deploypipe") / "servers" / str(port)


def recorded(folder: Path) -> Server | None:
    """The server whose record lies in `folder`, running or not; None where there is none."""
    path = folder / RECORD
    if not path.exists():
        return None
    remedy = f"Remove {folder} if no server of it runs."
    document = read_json(path, SCHEMA, ServingError, remedy)
    try:
        return from_document({**document, "folder": str(folder)}, Server)
    except ValueError as cause:
        raise ServingError(f"{path} is damaged: {first_line(cause)}", remedy) from cause


def started_here(url: str) -> Server | None:
    """The record of the server at `url`, if `serve` started it on this machine: another host's is not ours to know.
    UsageError for what is no address."""
    try:
        address = urlsplit(url)
        host, port = address.hostname, address.port
    except ValueError as cause:
        raise UsageError(f"{url!r} is no address of a server: {first_line(cause)}") from cause
    found = recorded(default_folder(port)) if port else None
    return found if found and host in {found.host, "127.0.0.1", "localhost", "::1"} else None


def tokens_of(server: Server) -> dict[str, str]:
    """The tokens that requests need, by what they are for: "inference", "management". Empty where none are."""
    if not server.tokens:
        return {}
    try:
        keys = json.loads((server.folder / KEYS).read_text(encoding="utf-8"))
        return {kind: keys[kind]["key"] for kind in ("inference", "management")}
    except (OSError, ValueError, KeyError):
        return {}  # not written yet


def authorization(server: Server, kind: str) -> dict[str, str]:
    """The header that requests of a kind need: "inference" or "management"; none where tokens are off."""
    tokens = tokens_of(server)
    return {"authorization": f"Bearer {tokens[kind]}"} if kind in tokens else {}
