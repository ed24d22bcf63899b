"""`package`: a proven artifact becomes an archive."""

from pathlib import Path
from typing import Annotated

import typer

from deploypipe.commands import options
from deploypipe.commands.output import Document, file_size, listing, next_commands


def package(
    artifact: Annotated[Path | None, typer.Option(help="[default: the newest run's, ONNX first]")] = None,
    run: options.RunFolder = None,
    name: Annotated[str | None, typer.Option(help="Model name. [default: the network's]")] = None,
    model_version: Annotated[str, typer.Option(help="Version of the model.")] = "1.0",
    model_store: options.ModelStore = options.STORE,
) -> Document:
    """Pack a proven artifact, its handler and its samples into a TorchServe archive."""
    from deploypipe.package import package as pack

    archive = pack(artifact, run, name, model_version, model_store)
    row = (str(archive.path), archive.name, archive.version, archive.kind, file_size(archive.path), archive.sha256[:12])
    listing(("archive", "model", "version", "artifact", "size", "sha256"), [row])
    next_commands(["serve", "--detach", *options.naming_store(model_store)])
    return archive.facts()
