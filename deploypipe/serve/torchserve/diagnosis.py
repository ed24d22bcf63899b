"""Why a server did not start, in one line, out of its logs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploypipe.serve.service.served_model import FAILED_REQUEST
from deploypipe.serve.torchserve.folder import Layout

_TRACEBACK = "Traceback (most recent call last):"
_WORKER = re.compile(r"^W-\d+-(?P<model>.+)-std(?:out|err)$")
_JAVA_ERROR = re.compile(r"^(?:Caused by: )?(?:[a-z]\w*\.)+(?P<error>\w*(?:Exception|Error)(?:: .*)?)$")
_REFUSED = "Failed to load model: "


def worker_error(layout: Layout) -> str:
    """The error with which a worker ended, as Python printed it: "digits_1.0: ArchiveInvalid: …"; "" when there is
    none."""
    return telling(worker_errors(layout))


def telling(errors: list[str]) -> str:
    """The first of them that says what went wrong; "" when there is none."""
    # After any ImportError TorchServe tries its own handlers too, and that second error hides the first.
    own = [error for error in errors if "ts.torch_handler" not in error]
    return (own or errors or [""])[0]


def worker_errors(layout: Layout) -> list[str]:
    """The errors with which workers ended, in their order."""
    errors = []
    in_traceback: set[str] = set()
    for model, line in _worker_lines(layout):
        if line.strip() == _TRACEBACK:
            in_traceback.add(model)
        elif model in in_traceback and line and not line[0].isspace():
            in_traceback.discard(model)
            name, _, text = line.partition(": ")
            errors.append(f"{model}: {name.rpartition('.')[2]}: {text}" if text else f"{model}: {name}")
    return errors


def _worker_lines(layout: Layout) -> Iterator[tuple[str, str]]:
    """(model, line). An event has several; before the handler is loaded, each line is an event of its own."""
    for event in events(layout.logs / "workers.log"):
        worker = _WORKER.match(event["worker"])
        if worker and FAILED_REQUEST not in event["message"].partition("\n")[0]:
            for line in event["message"].split("\n"):
                yield worker["model"], line


def server_error(layout: Layout) -> str:
    """What TorchServe's front end says: an archive that it refuses, or why it ended; "" when it says nothing."""
    for event in events(layout.logs / "server.log"):
        if event["message"].startswith(_REFUSED):
            reasons = _java_errors(event.get("error", "").split("\n")[:1])
            return ": ".join([event["message"], *(java["error"] for java in reasons)])
    console = _lines(layout.console)
    errors = _java_errors(console)
    if errors:
        return errors[-1]["error"]
    return next((line for line in reversed(console) if line.startswith(("Invalid", "Error", "Could not"))), "")


def events(path: Path) -> list[dict[str, Any]]:
    """The events of a log, oldest first. A line that is being written is left out."""
    found = []
    for line in _lines(path):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _java_errors(lines: list[str]) -> list[re.Match[str]]:
    return [match for line in lines if (match := _JAVA_ERROR.match(line.strip()))]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
