"""`predict`: a server's answers to files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from deploypipe.commands import options
from deploypipe.commands.output import Document, error, listing, out


def predict(
    files: Annotated[list[Path], typer.Argument(help="Images, or JSON requests for other models.")],
    url: options.Url = options.SERVER,
    name: options.ServedName = None,
) -> Document:
    """Send images (or JSON requests) to a server and show what it makes of them."""
    from deploypipe.client import client_for

    with client_for(url, name) as client:
        answers = client.ask_each(files)
    found = [{"file": str(file), **answer} for file, answer in zip(files, answers, strict=True)]
    _show(found)
    return {"predictions": found, "exit_code": next((a["exit_code"] for a in answers if "exit_code" in a), 0)}


def _show(found: Sequence[Mapping[str, Any]]) -> None:
    classified = [answer for answer in found if "class" in answer]
    if classified:
        rows = [(answer["file"], str(answer["class"]), f"{answer['probability']:.4f}") for answer in classified]
        listing(("file", "class", "probability"), rows)
    for answer in found:
        if "error" in answer:
            error(answer["error"])
        if "class" in answer or "error" in answer:
            continue
        for item in answer.get("predictions", [answer]):
            out.print(f"{answer['file']}: {json.dumps(item)}")
