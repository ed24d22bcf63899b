"""Is a server ready? Not by what it says of itself: every worker loaded, and packaged samples answered over HTTP.

TorchServe's `/ping` is healthy while workers crash-loop, and the management API may call a dead worker READY; so
neither is trusted alone.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from deploypipe.contract.archive import Archive
from deploypipe.contract.rejection import Rejection
from deploypipe.contract.server import Server, authorization, default_folder, recorded
from deploypipe.errors import first_line
from deploypipe.serve import processes
from deploypipe.serve.defaults import PORT
from deploypipe.serve.torchserve.loopback import Unanswered, ask
from deploypipe.serve.torchserve.management import Management


@dataclass(frozen=True)
class ModelStatus:
    name: str
    version: str
    workers: int
    """How many are loaded."""
    workers_wanted: int
    problem: str
    """Why the model is not ready; "" when it is."""
    default: bool = False
    """Requests that name no version get this one's answers."""

    @property
    def ready(self) -> bool:
        return not self.problem


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


def status(port: int = PORT, *, folder: Path | None = None, timeout: float = 10.0) -> Status:
    """What runs, and whether each model still answers its packaged samples, asked anew."""
    server = recorded((folder or default_folder(port)).resolve())
    if server is None:
        return Status("stopped", None, (), "no server was started here")
    if not processes.alive(server.process):
        return Status(
            "killed", server, (), f"the server (pid {server.pid}) is gone and nobody stopped it: killed, or crashed"
        )
    models = tuple(check(archive, server, timeout) for archive in server.archives)
    bad = [f"{model.name} {model.version}: {model.problem}" for model in models if not model.ready]
    if bad:
        return Status("running", server, models, "; ".join(bad))
    message = f"ready at {server.url}"
    for left in _unrecorded(server):
        message += f"; {left} is loaded too, by a deployment that goes on or was cut off"
    return Status("running", server, models, message)


def check(archive: Archive, server: Server, timeout: float) -> ModelStatus:
    """Ask for the model's workers, and for its answer to its own sample."""
    loaded, wanted, problem, default = 0, 0, "", False
    try:
        management = Management(server, timeout)
        found = management.loaded(archive.name, archive.version)
        default = management.default(archive.name) == archive.version
        if found is None:
            problem = "it is not loaded"
        else:
            loaded, wanted = found.workers, found.workers_wanted
            if wanted == 0:
                problem = "it takes no new requests: the server is being stopped"
            elif loaded < wanted:
                problem = f"{loaded} of {wanted} workers are loaded"
            else:
                problem = _sample_problem(archive, server, timeout)
    except Unanswered as cause:
        problem = str(cause)
    return ModelStatus(archive.name, archive.version, loaded, wanted, problem, default)


def _sample_problem(archive: Archive, server: Server, timeout: float) -> str:
    # Brings NumPy, which only a server that runs needs.
    from deploypipe.contract.protocol import disagreement, from_protocol, to_protocol

    signature, sample = archive.signature, archive.sample
    inputs = [to_protocol(spec.name, value) for spec, value in zip(signature.inputs, sample.inputs, strict=True)]
    response = ask(
        "POST",
        f"{server.url}/predictions/{archive.name}/{archive.version}",
        content=json.dumps({"inputs": inputs}).encode(),
        headers={"content-type": "application/json", **authorization(server, "inference")},
        timeout=timeout,
    )
    if response.status != 200:
        return f"it answers its packaged sample with HTTP {response.status}: {response.text[:200].strip()}"
    try:
        outputs = from_protocol(response.json()["outputs"], signature.outputs, "outputs")
    except (ValueError, KeyError, TypeError, Rejection) as cause:
        return f"its answer cannot be read: {first_line(cause)}"
    for spec, wanted, found, (atol, rtol) in zip(
        signature.outputs, sample.outputs, outputs, archive.tolerances, strict=True
    ):
        if problem := disagreement(wanted, found, atol, rtol):
            return f"its answer to its packaged sample is not eager's: output {spec.name!r}: {problem}"
    return ""


def _unrecorded(server: Server) -> list[str]:
    """What is loaded beside what the record says: a deployment was killed before it had proven and recorded it."""
    known = {(archive.name, archive.version) for archive in server.archives}
    loaded: list[tuple[str, str]] = []
    with contextlib.suppress(Unanswered):
        management = Management(server)
        loaded = [(name, version) for name in management.names() for version in management.versions(name)]
    return [f"{name} {version}" for name, version in loaded if (name, version) not in known]
