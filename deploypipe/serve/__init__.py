"""Serving on TorchServe: pack a proven artifact, start a server that proves itself, ask it, stop it.

    archive = package(Path("model.onnx"), "digits", store=Path("model_store"))
    server = start(Path("model_store"))
    predictions = Client(server.url, "digits").predict([Path("seven.png")])
    deploy(Path("digits-2.0.mar"))
    stop()

`handler.py` and what it imports (`wire.py`, `images.py`, `requests.py`, `tensors.py`, `rejection.py`, `metrics.py`,
`slots.py`, `exposition.py`, `worker_log.py`) travel inside archives and therefore import nothing of deploypipe by its
name.

Each public name is loaded when it is first used: a client, or the command that asks whether a server is ready, needs no
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploypipe.contract.archive import Archive
    from deploypipe.serve.archive import package, read_archive
    from deploypipe.serve.client import Client, Prediction
    from deploypipe.serve.deployment import Deployment, deploy
    from deploypipe.serve.java import Java, find_java
    from deploypipe.serve.readiness import ModelStatus, Status, status
    from deploypipe.serve.record import Server, tokens_of
    from deploypipe.serve.server import Stopped, serve_foreground, start, stop

_HOMES = {
    "Archive": "deploypipe.contract.archive",
    "Client": "deploypipe.serve.client",
    "Deployment": "deploypipe.serve.deployment",
    "Java": "deploypipe.serve.java",
    "ModelStatus": "deploypipe.serve.readiness",
    "Prediction": "deploypipe.serve.client",
    "Server": "deploypipe.serve.record",
    "Status": "deploypipe.serve.readiness",
    "Stopped": "deploypipe.serve.server",
    "deploy": "deploypipe.serve.deployment",
    "find_java": "deploypipe.serve.java",
    "package": "deploypipe.serve.archive",
    "read_archive": "deploypipe.serve.archive",
    "serve_foreground": "deploypipe.serve.server",
    "start": "deploypipe.serve.server",
    "status": "deploypipe.serve.readiness",
    "stop": "deploypipe.serve.server",
    "tokens_of": "deploypipe.serve.record",
}
"""Each public name, and the module that defines it."""

__all__ = [
    "Archive",
    "Client",
    "Deployment",
    "Java",
    "ModelStatus",
    "Prediction",
    "Server",
    "Status",
    "Stopped",
    "deploy",
    "find_java",
    "package",
    "read_archive",
    "serve_foreground",
    "start",
    "status",
    "stop",
    "tokens_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
