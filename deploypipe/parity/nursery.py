"""A process that imports what the reader of one format needs, and forks another one for each artifact.

To import torch takes seconds, and every artifact is asked in a process of its own: so the imports are made once, by a
process that does nothing else. What it forks is as fresh as a new one: nothing of the caller has ever been in it. Run
as a module it is that process.
"""

import atexit
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from deploypipe.formats import format_of
from deploypipe.parity.answering import answer_all

LONGEST_MESSAGE = 64 * 1024
_ROOT = Path(__file__).parents[2]
"""Where this package lies: the other process imports the same one."""


class Nursery:
    """The process for files of one suffix. It is told what to do and answers nothing: nobody waits for its imports."""

    def __init__(self, suffix: str) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._numbers = itertools.count()
        # -P: the folder that one happens to be in, where the model's source may lie, is not imported from.
        command = [sys.executable, "-P", "-m", __name__, suffix, str(theirs.fileno())]
        where = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": where},
        )  # fmt: skip
        theirs.close()
        atexit.register(self._close)

    def start(self, path: Path, device: str, streams: Sequence[int]) -> int:
        """A process that answers with the artifact at `path`; `streams` are its standard input, output and error. The
        number that `end` takes."""
        number = next(self._numbers)
        message = {"number": number, "path": str(path.resolve()), "device": device}
        socket.send_fds(self._control, [json.dumps(message).encode()], list(streams))
        return number

    def end(self, number: int) -> None:
        with suppress(OSError):  # it has ended itself, and what it had forked with it
            self._control.send(json.dumps({"end": number}).encode())

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def _close(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()


def nursery_for(path: Path) -> Nursery:
    """The one for files like `path`, which starts when it is first asked for, and again if it was killed."""
    key = os.getpid(), path.suffix
    if key not in _NURSERIES or not _NURSERIES[key].lives:
        _NURSERIES[key] = Nursery(path.suffix)
    return _NURSERIES[key]


_NURSERIES: dict[tuple[int, str], Nursery] = {}
"""By whoever uses it, for a fork of this process must not share its control; and by suffix."""


def main(suffix: str, control: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the caller, who ends this
    reader = format_of(Path(f"artifact{suffix}"))
    with suppress(Exception):
        reader.read(Path(os.devnull))  # which is no artifact, but readers import some things when they read
    children: dict[int, int] = {}
    try:
        while True:
            content, streams, _, _ = socket.recv_fds(control, LONGEST_MESSAGE, 3)
            if not content:
                return
            message = json.loads(content)
            if "end" in message:
                _end(children.pop(message["end"]))
                continue
            children[message["number"]] = os.fork() or _child(control, message["path"], message["device"], streams)
            for stream in streams:
                os.close(stream)
    finally:
        for child in children.values():
            _end(child)


def _child(control: socket.socket, path: str, device: str, streams: Sequence[int]) -> int:
    """Never returns: whatever happens, it does not become a second nursery."""
    status = 1
    try:
        control.close()
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        answer_all(Path(path), device)
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _end(child: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
