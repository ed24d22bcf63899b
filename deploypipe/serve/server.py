"""Start, stop and look at TorchServe: each server in a folder of its own, ready only once it has proven itself."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploypipe.errors import ServingError
from deploypipe.files import write_json
from deploypipe.serve import configuration, diagnosis, log4j, processes
from deploypipe.serve.archive import Archive
from deploypipe.serve.configuration import Layout, Settings
from deploypipe.serve.java import Java, find_java
from deploypipe.serve.network import check_free, connects, free_ports, is_loopback
from deploypipe.serve.readiness import ModelStatus, check
from deploypipe.serve.record import Server, clean, default_folder, recorded, tokens_of
from deploypipe.serve.store import archives_in

PORT = 8080
_SOCKET_PATH = 100
"""Bytes; the operating systems' limit for a socket's path is 104 to 108."""
_PAUSE = 0.2
_STOP_GRACE = 20.0


@dataclass(frozen=True)
class Status:
    state: str
    """"running"; "killed": it ended and nobody stopped it; "stopped": there is none."""
    server: Server | None
    models: tuple[ModelStatus, ...]
    message: str

    @property
    def ready(self) -> bool:
        return self.state == "running" and bool(self.models) and all(model.ready for model in self.models)


def start(
    store: Path,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    models: Sequence[str] | None = None,
    folder: Path | None = None,
    workers: int | None = None,
    batch: int = 64,
    delay_ms: int = 1,
    queue: int = 1000,
    device: str = "cpu",
    tokens: bool | None = None,
    timeout: float = 120.0,
) -> Server:
    """Serve the archives in `store`; return once each of them answered its packaged samples over HTTP.

    `models`: names or file names of archives; None for all. Of several versions of a name the newest is the default.
    `port`: 0 for a free one. `folder`: the server's own files; by default under the user's state folder, by port.
    `workers`: of each model; by default half the cores, 4 at most. `device`: "cpu" or "cuda". `tokens`: whether
    requests need a token; by default only where `host` is not this machine alone. `timeout`: seconds.

    ServingError, before anything is started, for a port that is taken, a store that is missing or empty, a broken
    archive, a missing Java; and, with nothing left running, when a model does not load (with its worker's own error)
    or does not answer as it should.
    """
    if workers is not None and workers < 1:
        raise ServingError(f"{workers} workers cannot serve a model", "Give 1 or more.")
    store = store.resolve()
    archives = archives_in(store, models)
    java = find_java()
    if device not in ("cpu", "cuda"):
        raise ServingError(f"models are served on cpu or cuda, not on {device!r}")
    gpus = 1024 if device == "cuda" else 0  # TorchServe takes as many as there are
    if tokens is None:
        tokens = not is_loopback(host)
    with processes.interruptions() as noted:
        for _attempt in range(3):
            if folder or port:
                _refuse_second(recorded((folder or default_folder(port)).resolve()))
            check_free(host, port)
            free = free_ports(7)
            chosen = port or free[6]
            settings = Settings(
                host, chosen, free[0], free[1], free[5], (free[2], free[3]), free[4],
                _default_workers() if workers is None else workers, batch, delay_ms, queue, gpus, tokens,
            )  # fmt: skip
            layout = Layout((folder or default_folder(chosen)).resolve())
            with contextlib.suppress(_PortLost), _locked(layout):
                return _start(layout, settings, store, archives, java, noted, time.monotonic() + timeout, timeout)
    raise ServingError("other programs kept taking the ports that were free a moment before", "Try again.")


def _refuse_second(server: Server | None) -> None:
    if server and processes.alive(server.pid, server.created):
        raise ServingError(f"a server runs already at {server.url} (pid {server.pid})", "`deploypipe stop` ends it.")


class _PortLost(Exception):
    """A port that was free was taken before TorchServe came to it."""


def _start(
    layout: Layout,
    settings: Settings,
    store: Path,
    archives: Sequence[Archive],
    java: Java,
    noted: processes.Interruptions,
    deadline: float,
    timeout: float,
) -> Server:
    if earlier := recorded(layout.folder):
        _refuse_second(earlier)
        clean(earlier)
    shutil.rmtree(layout.logs, ignore_errors=True)
    layout.logs.mkdir(parents=True)
    layout.keys.unlink(missing_ok=True)
    scratch = _scratch(layout)
    layout.properties.write_text(configuration.properties(settings, archives, store), encoding="ascii")
    layout.logging.write_text(log4j.configuration(layout.logs), encoding="utf-8")
    noted.check()
    server: Server | None = None
    try:
        pid, created = processes.launch(
            configuration.command(java, layout, scratch),
            layout.folder,
            configuration.environment(settings, layout, scratch),
            layout.console,
        )
        server = Server(
            layout.folder, pid, created, settings.host, settings.port, settings.management_port,
            settings.metrics_port, store, scratch, settings.tokens, tuple(archives),
        )  # fmt: skip
        write_json(layout.record, server.to_json())
        _wait_until_ready(server, layout, noted, deadline, timeout)
    except BaseException:
        if server is not None:
            processes.end(server.pid, server.created, grace=5)
            layout.record.unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return server


def _wait_until_ready(
    server: Server, layout: Layout, noted: processes.Interruptions, deadline: float, timeout: float
) -> None:
    waiting = list(server.archives)
    problem = "TorchServe has not opened its port"
    log = f"Its logs are in {layout.logs}."
    while waiting:
        noted.wait(_PAUSE)
        if error := diagnosis.worker_error(layout):
            raise ServingError(f"a model does not load: {error}", log)
        if not processes.alive(server.pid, server.created):
            error = diagnosis.server_error(layout) or "it says nothing"
            if "Address already in use" in error or "Failed to bind" in error:
                raise _PortLost
            raise ServingError(f"TorchServe ended while it started: {error}", log)
        if (error := diagnosis.server_error(layout)).startswith("Failed to load"):
            raise ServingError(f"TorchServe refuses an archive: {error}", log)
        if time.monotonic() > deadline:
            raise ServingError(f"the server was not ready within {timeout:g} s: {problem}", log)
        if connects("127.0.0.1", server.management_port):
            found = check(waiting[0], server.url, server.management_url, tokens_of(server), timeout=5)
            problem = f"{waiting[0]}: {found.problem}"
            if found.ready:
                waiting.pop(0)


def stop(port: int = PORT, *, folder: Path | None = None, grace: float = _STOP_GRACE) -> Server:
    """End what `start` started, all of it, and return once it is gone. ServingError when there is no such server.

    TorchServe is asked first and has `grace` seconds; whatever is left of its processes then is killed.
    """
    place = (folder or default_folder(port)).resolve()
    server = recorded(place)
    if server is None:
        raise ServingError(f"no server was started with port {port}" if folder is None else f"no server in {place}")
    processes.end(server.pid, server.created, grace)
    clean(server)
    return server


def status(port: int = PORT, *, folder: Path | None = None, timeout: float = 10.0) -> Status:
    """What runs, and whether each model still answers its packaged samples, asked anew."""
    server = recorded((folder or default_folder(port)).resolve())
    if server is None:
        return Status("stopped", None, (), "no server was started here")
    if not processes.alive(server.pid, server.created):
        return Status(
            "killed", server, (), f"the server (pid {server.pid}) is gone and nobody stopped it: killed, or crashed"
        )
    keys = tokens_of(server)
    models = tuple(check(archive, server.url, server.management_url, keys, timeout) for archive in server.archives)
    bad = [f"{model.name} {model.version}: {model.problem}" for model in models if not model.ready]
    return Status("running", server, models, "; ".join(bad) or f"ready at {server.url}")


def serve_foreground(store: Path, on_ready: Callable[[Server], None] = lambda server: None, **options: Any) -> None:
    """`start(store, **options)`, call `on_ready`, and stop at SIGINT or SIGTERM. ServingError when the server ends."""
    with processes.interruptions() as noted:
        server = start(store, **options)
        try:
            on_ready(server)
            while processes.alive(server.pid, server.created):
                if noted.noted.wait(0.5):
                    return
            code = processes.exit_code(server.pid)
            log = f"Its logs are in {Layout(server.folder).logs}."
            raise ServingError(f"the server ended by itself (exit {code})", log)
        finally:
            processes.end(server.pid, server.created, _STOP_GRACE)
            clean(server)


def _default_workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, max(1, cores // 2))


def _scratch(layout: Layout) -> Path:
    """The server's temporary folder: inside its own, unless sockets there would have too long a path."""
    inside = layout.folder / "tmp"
    shutil.rmtree(inside, ignore_errors=True)
    if len(os.fsencode(inside / ".ts.sock.65535")) > _SOCKET_PATH:
        return Path(tempfile.mkdtemp(prefix="deploypipe-"))
    inside.mkdir(parents=True)
    return inside


@contextlib.contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """One start at a time in one folder."""
    layout.folder.mkdir(parents=True, exist_ok=True)
    with (layout.folder / "lock").open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            raise ServingError(f"another start is under way in {layout.folder}") from cause
        yield
