"""Wait until TorchServe has answered what it accepted.

TorchServe says how many requests wait in a model's queue, but not how many a worker has in its hands. Those are seen
from outside: a worker that has a batch uses the processor, and one that has none sleeps.
"""

import time
from collections.abc import Callable, Sequence

import psutil

from deploypipe.contract.server import Server
from deploypipe.serve import processes
from deploypipe.serve.torchserve.management import Loaded, Management

_PAUSE = 0.05
_QUIET = 0.5
"""Seconds without a sign of work, after which there is none: more than TorchServe needs between a worker's answer and
the client's connection."""


def idle(
    look: Callable[[], tuple[Sequence[Loaded], Sequence[psutil.Process]]],
    seconds: float,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """Whether, within `seconds`, the models that `look` finds had empty queues, and the workers that it finds slept,
    for a while. `sleep` may raise to end the waiting."""
    deadline = time.monotonic() + seconds
    before, since = -1.0, 0.0
    while True:
        models, workers = look()
        used, running = processes.activity(workers)
        now = time.monotonic()
        if running or used != before or any(model.waiting for model in models):
            before, since = used, now
        elif now - since > _QUIET + max((model.delay_ms for model in models), default=0) / 1000:
            return True
        if now > deadline:
            return False
        sleep(_PAUSE)


def drain(server: Server, seconds: float) -> bool:
    """Have TorchServe take no new requests, and wait until it has answered those that it took; whether it has, within
    `seconds`. Raises Unanswered when it cannot be asked, and ServingError when it refuses."""
    management = Management(server, timeout=2)
    models = [(name, version) for name in management.names() for version in management.versions(name)]
    for name, version in models:
        management.refuse_new(name, version)

    def look() -> tuple[list[Loaded], list[psutil.Process]]:
        found = [loaded for name, version in models if (loaded := management.loaded(name, version))]
        workers = [process for process in processes.members(server.process) if process.pid != server.pid]
        return found, workers

    return idle(look, seconds)
