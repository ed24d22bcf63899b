"""One address to scrape: what all workers counted, then what TorchServe's front end counts. Travels inside archives.

Whichever worker comes first listens, in a thread; when it ends, another one does.
"""

import http.client
import os
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from .slots import FOLDER_VARIABLE, forget_dead

PORT_VARIABLE = "DEPLOYPIPE_METRICS_PORT"
FRONT_END_VARIABLE = "DEPLOYPIPE_FRONT_END_METRICS_PORT"
PATH = "/metrics"
_ADDRESS = "127.0.0.1"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PAUSE = 0.5
"""Seconds between attempts to take over."""


def expose() -> None:
    """Listen as soon as the port is free; nothing happens where the environment names no port."""
    if port := os.environ.get(PORT_VARIABLE):
        folder, front_end = Path(os.environ[FOLDER_VARIABLE]), int(os.environ[FRONT_END_VARIABLE])

        def page() -> bytes:
            return of_workers(folder) + _of_front_end(front_end)

        threading.Thread(target=_serve, args=(int(port), page), name="metrics", daemon=True).start()


def of_workers(folder: Path) -> bytes:
    """What the workers whose files lie in `folder` counted, those that are gone included, in Prometheus's format."""
    forget_dead(folder)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _of_front_end(port: int) -> bytes:
    """As TorchServe says it; nothing while it starts or ends."""
    connection = http.client.HTTPConnection(_ADDRESS, port, timeout=5)
    try:
        connection.request("GET", PATH)
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()


def _serve(port: int, page: Callable[[], bytes]) -> None:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # seconds, for a client that says nothing

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != PATH:
                self.send_error(404)
                return
            body = page()
            self.send_response(200)
            self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """A scrape is no event."""

    while True:
        try:
            with ThreadingHTTPServer((_ADDRESS, port), Handler) as server:
                server.serve_forever()
        except OSError:  # another worker listens
            time.sleep(_PAUSE)
