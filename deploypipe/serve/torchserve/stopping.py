"""Stop TorchServe: what it accepted is answered, then all that it started is ended. It needs nothing of a start."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from deploypipe.contract.server import Server, default_folder, recorded
from deploypipe.errors import ServingError
from deploypipe.serve import processes
from deploypipe.serve.defaults import DRAIN, PORT
from deploypipe.serve.torchserve import draining
from deploypipe.serve.torchserve.folder import clean, locked
from deploypipe.serve.torchserve.loopback import Unanswered

_STOP_GRACE = 20.0
_LOCK_WAIT = 10.0
"""Seconds for a start or a deployment to notice that the server is gone."""


@dataclass(frozen=True)
class Stopped:
    server: Server
    drained: bool
    """Whether all that was accepted was answered, as far as can be told."""


def stop(port: int = PORT, *, folder: Path | None = None, drain: float = DRAIN, grace: float = _STOP_GRACE) -> Stopped:
    """End what `start` started, all of it, and return once it is gone. ServingError when there is no such server.

    For up to `drain` seconds new requests get 503 and those that were accepted are answered. Then TorchServe is asked
    to end and has `grace` seconds; whatever is left of its processes then is killed.
    """
    place = (folder or default_folder(port)).resolve()
    server = recorded(place)
    if server is None:
        raise ServingError(f"no server was started with port {port}" if folder is None else f"no server in {place}")
    return end(server, drain, grace)


def end(server: Server, drain: float, grace: float = _STOP_GRACE) -> Stopped:
    """`stop` for a server that is known."""
    drained = False
    if drain > 0 and processes.alive(server.process):
        # A server that hangs cannot be asked, and is ended all the same.
        with contextlib.suppress(Unanswered, ServingError):
            drained = draining.drain(server, drain)
    processes.end(server.process, grace)
    # Whoever has held the lock for so long starts a server here, and has cleaned up after this one.
    with contextlib.suppress(ServingError), locked(server.folder, wait=_LOCK_WAIT):
        clean(server)
    return Stopped(server, drained)
