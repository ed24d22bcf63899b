"""How many requests may wait: those answered in time, by the pace of the archives' own handlers on this machine.

An archive's code runs in a process of its own, which sees of our environment what a worker sees of it, and is ended
when it takes too long. Run as a module this is that process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploypipe.contract.archive import Archive, read_archive
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.serve.sessions import ArchiveSession
from deploypipe.serve.torchserve.configuration import base_environment

_SECONDS = 0.3
"""Of measuring, for each archive."""
_LONGEST = 60.0
"""Seconds for all archives to be loaded and measured; a handler that hangs must not keep a server from starting."""
_SHARE = 0.5
"""Of the handlers' pace is what requests see: the front end, and clients on the same machine, take the rest."""


def queue_for(
    archives: Sequence[Archive], workers: int, batch: int, device: str, seconds: float, longest: float = _LONGEST
) -> int:
    """The length of a model's queue whose last request is answered within `seconds`, when it is asked for one image,
    or for as much as its packaged sample, at a time.

    Each archive's handler is loaded and timed; the slowest decides, for TorchServe has one length for all. The last in
    the queue also waits for the batch that its worker has in hand, so that is taken off; where a full batch takes more
    than half of `seconds`, the queue is what makes batches smaller. At least one. An archive that does not load, or is
    not measured within `longest` seconds, is left to the server, which says why; where none is, a batch may wait.
    """
    rates = _measured(archives, batch, device, longest)
    if not rates:
        return batch
    in_time = min(rates) * _SHARE * seconds  # by one worker
    return max(1, int(workers * max(in_time - batch, in_time / 2)))


def _measured(archives: Sequence[Archive], batch: int, device: str, longest: float) -> list[float]:
    """Requests a second of each archive whose handler could be timed."""
    command = [sys.executable, "-m", __name__, device, str(batch), *(str(archive.path) for archive in archives)]
    environment = base_environment() | {"PYTHONPATH": str(Path(__file__).parents[3])}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=longest,
        )  # fmt: skip
        said = done.stdout
    except subprocess.TimeoutExpired as cause:
        said = cause.stdout or b""
    return [float(line) for line in said.split(b"\n")[:-1]]


def rate_of(archive: Archive, batch: int, device: str) -> float:
    """Requests a second that the archive's handler answers, loaded into this process. PackageError where it does not
    load."""
    inputs = archive.sample.inputs
    if archive.task == IMAGE_CLASSIFICATION:
        inputs = (inputs[0][:1],)
    with ArchiveSession(archive, device) as session:
        return session.rate(inputs, batch, _SECONDS)


def main(device: str, batch: str, *paths: str) -> None:
    """Print a rate a line, as soon as it is known."""
    figures = os.dup(1)
    os.dup2(2, 1)  # what the archives' code prints is none
    for path in paths:
        try:
            rate = rate_of(read_archive(Path(path)), int(batch), device)
        except Exception as cause:
            print(json.dumps({"archive": path, "error": repr(cause)}), file=sys.stderr)
            continue
        os.write(figures, f"{rate!r}\n".encode("ascii"))


if __name__ == "__main__":
    main(*sys.argv[1:])
