"""Why a server did not start, in one line, out of its logs."""

import re
from pathlib import Path

from deploypipe.serve.configuration import Layout

_TRACEBACK = "Traceback (most recent call last):"
_WORKER_LINE = re.compile(r"^\S+ W-\d+-(?P<model>.+)-std(?:out|err) - (?P<message>.*)$")
_JAVA_ERROR = re.compile(r"^(?:Caused by: )?(?:[a-z]\w*\.)+(?P<error>\w*(?:Exception|Error)(?:: .*)?)$")
_REFUSED = re.compile(r" - (?P<message>Failed to load model: .*)$")


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
    for line in _lines(layout.logs / "workers.log"):
        match = _WORKER_LINE.match(line)
        if not match:
            continue
        model, message = match["model"], match["message"]
        if message.strip() == _TRACEBACK:
            in_traceback.add(model)
        elif model in in_traceback and message and not message[0].isspace():
            in_traceback.discard(model)
            name, _, text = message.partition(": ")
            errors.append(f"{model}: {name.rpartition('.')[2]}: {text}" if text else f"{model}: {name}")
    return errors


def server_error(layout: Layout) -> str:
    """What TorchServe's front end says: an archive that it refuses, or why it ended; "" when it says nothing."""
    server_log = _lines(layout.logs / "server.log")
    for i, line in enumerate(server_log):
        if refused := _REFUSED.search(line):
            return ": ".join([refused["message"], *(java["error"] for java in _java_errors(server_log[i + 1 : i + 2]))])
    console = _lines(layout.console)
    errors = _java_errors(console)
    if errors:
        return errors[-1]["error"]
    return next((line for line in reversed(console) if line.startswith(("Invalid", "Error", "Could not"))), "")


def _java_errors(lines: list[str]) -> list[re.Match[str]]:
    return [match for line in lines if (match := _JAVA_ERROR.match(line.strip()))]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
