"""`serve`, `status`, `ready`, `deploy` and `stop`: a server from its start to its end."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploypipe.commands import options
from deploypipe.commands.output import Document, listing, next_commands, note, out, warn
from deploypipe.errors import ServingError
from deploypipe.serve.defaults import ANSWER_WITHIN, BATCH, DRAIN, PORT

if TYPE_CHECKING:
    from deploypipe.contract.server import Server
    from deploypipe.serve.torchserve.deployment import Deployment
    from deploypipe.serve.torchserve.readiness import Status


def serve(
    model_store: options.ModelStore = options.STORE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: options.Port = PORT,
    detach: Annotated[bool, typer.Option("--detach", help="Return when ready; else stay until Ctrl-C.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Per model. [default: the cores shared among the models, 4 at most]")
    ] = None,
    batch: Annotated[int, typer.Option(help="Most requests in one run; 1 is fastest for a single client.")] = BATCH,
    answer_within: Annotated[
        float, typer.Option(help="Seconds: more requests than are answered within them get 503 at once.")
    ] = ANSWER_WITHIN,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    tokens: Annotated[
        bool | None,
        typer.Option(help="Whether requests need one. [default: if --deployable, or --host is not this machine alone]"),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for readiness.")] = 120.0,
    drain: options.Drain = DRAIN,
    deployable: Annotated[
        bool,
        typer.Option(
            "--deployable",
            help="Let `deploypipe deploy` load other archives later; with --no-tokens so can any user of this machine.",
        ),
    ] = False,
) -> Document:
    """Serve every archive of the store with TorchServe; ready means that each answered its samples correctly."""
    from deploypipe.serve.torchserve import lifecycle

    started: list[Server] = []

    def ready(found: "Server") -> None:
        started.append(found)
        _show_server(found)

    settings = {"host": host, "port": port, "workers": workers, "batch": batch, "answer_within": answer_within,
                "device": device, "tokens": tokens, "timeout": timeout, "deployable": deployable}  # fmt: skip
    if detach:
        ready(lifecycle.start(model_store, **settings))  # type: ignore[arg-type]
        name, at = started[0].archives[0].name, str(started[0].port)
        next_commands(["predict", "--url", started[0].url, "--name", name, "digit.png"], ["stop", "--port", at])
    else:
        note("Serving until Ctrl-C.")
        lifecycle.serve_foreground(model_store, ready, drain=drain, **settings)
    return {"url": started[0].url, "metrics_url": started[0].metrics_url, "pid": started[0].pid,
            "folder": str(started[0].folder),
            "models": [archive.facts() for archive in started[0].archives]}  # fmt: skip


def status(port: options.Port = PORT) -> Document:
    """What the server on this port serves, and whether it answers its samples correctly; exit 8 when it does not."""
    from deploypipe.serve.torchserve import readiness

    found = readiness.status(port)
    _show_status(found)
    _require_ready(found, port)
    return {"state": found.state, "message": found.message, "metrics_url": found.server and found.server.metrics_url,
            "models": [dataclasses.asdict(model) for model in found.models]}  # fmt: skip


def ready(port: options.Port = PORT) -> Document:
    """Exit 0 when the server answers its samples correctly, else 8, without a word: for a container's probe."""
    from deploypipe.serve.torchserve import readiness

    _require_ready(readiness.status(port), port)
    return {"ready": True}


def _require_ready(found: "Status", port: int) -> None:
    if not found.ready:
        raise ServingError(f"port {port}: {found.message}", "Start a server with `deploypipe serve`.")


def deploy(
    archive: Annotated[Path, typer.Argument(help="A .mar file, or the name of one in the server's model store.")],
    port: options.Port = PORT,
    keep: Annotated[bool, typer.Option("--keep", help="Serve the version that it replaces, too.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to load it.")] = 120.0,
    drain: Annotated[float, typer.Option(help="Seconds for the replaced version to finish.")] = 60.0,
) -> Document:
    """Load an archive into the running server, prove it, make it the default, and unload the version before it."""
    from deploypipe.serve.torchserve import deployment

    done = deployment.deploy(archive, port, keep=keep, timeout=timeout, drain=drain)
    _show_deployment(done)
    if done.state == "deployed" and done.previous and not done.removed and not keep:
        warn(f"{done.previous} had requests for {drain:g} s on end, and stays served")
    next_commands(["status", *([] if port == PORT else ["--port", str(port)])])
    return {**done.archive.facts(), "state": done.state, "previous": done.previous, "removed": done.removed}


def stop(port: options.Port = PORT, drain: options.Drain = DRAIN) -> Document:
    """End the server that `serve` started, and everything it started, once what it accepted is answered."""
    from deploypipe.serve.torchserve import stopping

    done = stopping.stop(port, drain=drain)
    out.print(f"stopped {done.server.url} (process {done.server.pid})")
    if not done.drained:
        warn("requests that were under way may have been cut off")
    return {"url": done.server.url, "pid": done.server.pid, "drained": done.drained}


def _show_server(found: "Server") -> None:
    listing(
        ("model", "version", "artifact", "predictions"),
        [
            (archive.name, archive.version, archive.kind, f"{found.url}/predictions/{archive.name}/{archive.version}")
            for archive in found.archives
        ],
    )
    note(f"Metrics for Prometheus: {found.metrics_url}")
    if found.tokens:
        note(f"Requests need the header Authorization: Bearer <key>; the keys are in {found.folder}/key_file.json")


def _show_status(found: "Status") -> None:
    if found.models:
        several = Counter(model.name for model in found.models)
        rows = [(model.name, _version(model.version, model.default and several[model.name] > 1),
                 f"{model.workers} of {model.workers_wanted}", model.problem or "correct")
                for model in found.models]  # fmt: skip
        listing(("model", "version", "workers", "answers"), rows)
    if found.ready:
        note(found.message)


def _show_deployment(done: "Deployment") -> None:
    name, version, previous = done.archive.name, done.archive.version, done.previous
    served = [archive.version for archive in done.server.archives if archive.name == name]
    listing(
        ("model", "version", "predictions"),
        [(name, _version(each, each == version), f"{done.server.url}/predictions/{name}/{each}") for each in served],
    )
    if done.state == "unchanged":
        note(f"{name} {version} was the default already.")
    elif previous is None:
        note(f"{name} {version} is served.")
    else:
        note(f"{name} {version} is the default; {previous} {'is unloaded' if done.removed else 'is still served'}.")


def _version(version: str, default: bool) -> str:
    return f"{version} (default)" if default else version
