"""Serving on TorchServe: pack a proven artifact, start a server that proves itself, ask it, stop it.

    archive = package(Path("model.onnx"), "digits", store=Path("model_store"))
    server = start(Path("model_store"))
    predictions = Client(server.url, "digits").predict([Path("seven.png")])
    deploy(Path("digits-2.0.mar"))
    stop()

`handler.py` and what it imports (`wire.py`, `images.py`, `requests.py`, `tensors.py`, `rejection.py`, `metrics.py`,
`slots.py`, `exposition.py`, `worker_log.py`) travel inside archives and therefore import nothing of deploypipe by its
name.
"""

from deploypipe.serve.archive import Archive, package, read_archive
from deploypipe.serve.client import Client, Prediction
from deploypipe.serve.deployment import Deployment, deploy
from deploypipe.serve.java import Java, find_java
from deploypipe.serve.readiness import ModelStatus, Status, status
from deploypipe.serve.record import Server, tokens_of
from deploypipe.serve.server import Stopped, serve_foreground, start, stop

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
