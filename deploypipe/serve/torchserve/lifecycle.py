"""Start TorchServe, and serve until Ctrl-C: each server in its own folder, ready only once it has proven itself."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deploypipe.contract.archive import Archive
from deploypipe.contract.server import Server, default_folder, recorded
from deploypipe.errors import ServingError
from deploypipe.serve import processes
from deploypipe.serve.defaults import ANSWER_WITHIN, BATCH, DRAIN, PORT
from deploypipe.serve.network import check_free, connects, free_ports, is_loopback
from deploypipe.serve.store import archives_in
from deploypipe.serve.torchserve import configuration, diagnosis, log4j
from deploypipe.serve.torchserve.capacity import queue_for
from deploypipe.serve.torchserve.configuration import ServerSettings
from deploypipe.serve.torchserve.folder import Layout, clean, fresh_logs, locked
from deploypipe.serve.torchserve.java import Java, find_java
from deploypipe.serve.torchserve.readiness import check
from deploypipe.serve.torchserve.stopping import end

_SOCKET_PATH = 100
"""Bytes; the operating systems' limit for a socket's path is 104 to 108."""
_PAUSE = 0.2
_ANSWER = 30.0
"""Seconds for an answer to a packaged sample: a machine that is busy takes its time, and is asked again after that."""


def start(
    store: Path,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    models: Sequence[str] | None = None,
    folder: Path | None = None,
    workers: int | None = None,
    batch: int = BATCH,
    delay_ms: int = 1,
    queue: int | None = None,
    answer_within: float = ANSWER_WITHIN,
    device: str = "cpu",
    tokens: bool | None = None,
    deployable: bool = False,
    timeout: float = 120.0,
) -> Server:
    """Serve the archives in `store`; return once each of them answered its packaged samples over HTTP.

    `models`: names or file names of archives; None for all. Of several versions of a name the newest is the default.
    `port`: 0 for a free one. `folder`: the server's own files; by default under the user's state folder, by port.
    `workers`: of each model; by default the cores are shared among the models, 4 each at most. `batch`: the most
    requests that a worker gets at once; with 1 none waits for others (`delay_ms`). `queue`: requests that may wait for
    a model, beyond which the answer is 503 at once; by default as many as are answered within `answer_within` seconds
    (see `capacity`). `device`: "cpu" or "cuda". `tokens`: whether requests need a token; by default where `host` is
    not this machine alone, and where it is `deployable`. `deployable`: whether `deploy` can load other archives later;
    without tokens, so can whoever else is on this machine, and folders from anywhere, too. `timeout`: seconds.

    ServingError, before anything is started, for a port that is taken, a store that is missing or empty, a broken
    archive, a missing Java; and, with nothing left running, when a model does not load (with its worker's own error)
    or does not answer as it should.
    """
    if workers is not None and workers < 1:
        raise ServingError(f"{workers} workers cannot serve a model", "Give 1 or more.")
    if device not in ("cpu", "cuda"):
        raise ServingError(f"models are served on cpu or cuda, not on {device!r}")
    store = store.resolve()
    gpus = 1024 if device == "cuda" else 0  # TorchServe takes as many as there are
    if tokens is None:
        tokens = deployable or not is_loopback(host)
    with processes.interruptions() as noted:
        with noted.obeyed():
            archives = archives_in(store, models)
            java = find_java()
            workers = workers or _default_workers(len(archives))
            if queue is None:
                queue = queue_for(archives, workers, batch, device, answer_within)
        for _attempt in range(3):
            if folder or port:
                _refuse_second(recorded((folder or default_folder(port)).resolve()))
            check_free(host, port)
            free = free_ports(7)
            chosen = port or free[6]
            settings = ServerSettings(
                host=host,
                port=chosen,
                management_port=free[0],
                metrics_port=free[1],
                front_end_metrics_port=free[2],
                grpc_ports=(free[3], free[4]),
                worker_port=free[5],
                workers=workers,
                batch=batch,
                delay_ms=delay_ms,
                queue=queue,
                gpus=gpus,
                tokens=tokens,
                deployable=deployable,
            )
            layout = Layout((folder or default_folder(chosen)).resolve())
            with contextlib.suppress(_PortLost), locked(layout.folder):
                return _start(layout, settings, store, archives, java, noted, time.monotonic() + timeout, timeout)
    raise ServingError("other programs kept taking the ports that were free a moment before", "Try again.")


def _refuse_second(server: Server | None) -> None:
    if server and processes.alive(server.process):
        raise ServingError(f"a server runs already at {server.url} (pid {server.pid})", "`deploypipe stop` ends it.")


class _PortLost(Exception):
    """A port that was free was taken before TorchServe came to it."""


def _start(
    layout: Layout,
    settings: ServerSettings,
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
    fresh_logs(layout)
    layout.keys.unlink(missing_ok=True)
    scratch = _scratch(layout)
    layout.properties.write_text(configuration.properties(settings, archives, store), encoding="ascii")
    configuration.write_home(scratch)
    layout.logging.write_text(log4j.configuration(layout.logs), encoding="utf-8")
    noted.check()
    server: Server | None = None
    try:
        process = processes.launch(
            configuration.command(java, layout, scratch),
            layout.folder,
            configuration.environment(settings, layout, scratch),
            layout.console,
        )
        server = Server(
            layout.folder, process, settings.host, settings.port, settings.management_port,
            settings.metrics_port, store, scratch, settings.tokens, tuple(archives),
        )  # fmt: skip
        server.write()
        _wait_until_ready(server, layout, noted, deadline, timeout)
    except BaseException:
        if server is not None:
            processes.end(server.process, grace=5)
            clean(server)
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
        if not processes.alive(server.process):
            error = diagnosis.server_error(layout) or "it says nothing"
            if "Address already in use" in error or "Failed to bind" in error:
                raise _PortLost
            raise ServingError(f"TorchServe ended while it started: {error}", log)
        if (error := diagnosis.server_error(layout)).startswith("Failed to load"):
            raise ServingError(f"TorchServe refuses an archive: {error}", log)
        if time.monotonic() > deadline:
            raise ServingError(f"the server was not ready within {timeout:g} s: {problem}", log)
        if connects("127.0.0.1", server.management_port):
            with noted.obeyed():
                found = check(waiting[0], server, timeout=_ANSWER)
            problem = f"{waiting[0]}: {found.problem}"
            if found.ready:
                waiting.pop(0)


def serve_foreground(
    store: Path, on_ready: Callable[[Server], None] = lambda server: None, *, drain: float = DRAIN, **options: Any
) -> None:
    """`start(store, **options)`, call `on_ready`, and `stop` it at SIGINT or SIGTERM. ServingError when the server
    ends."""
    with processes.interruptions() as noted:
        server = start(store, **options)
        try:
            on_ready(server)
            while processes.alive(server.process):
                if noted.noted.wait(0.5):
                    return
            code = processes.exit_code(server.pid)
            log = f"Its logs are in {Layout(server.folder).logs}."
            raise ServingError(f"the server ended by itself (exit {code})", log)
        finally:
            end(server, drain)


def _default_workers(models: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(4, cores // models))


def _scratch(layout: Layout) -> Path:
    """The server's temporary folder: inside its own, unless sockets there would have too long a path."""
    inside = layout.folder / "tmp"
    shutil.rmtree(inside, ignore_errors=True)
    if len(os.fsencode(inside / ".ts.sock.65535")) > _SOCKET_PATH:
        return Path(tempfile.mkdtemp(prefix="deploypipe-"))
    inside.mkdir(parents=True)
    return inside
