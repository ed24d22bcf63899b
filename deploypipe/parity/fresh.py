"""An artifact in a Python process of its own, which has nothing of this one: no model source, no registered operators,
no settings that earlier code has changed. Run as a module it is that process."""

import pickle
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from deploypipe.contract.tensors import Array
from deploypipe.errors import first_line
from deploypipe.formats.reading import read_session
from deploypipe.formats.session import Session

_LENGTH = struct.Struct("!Q")


class FreshProcess(Session):
    """The artifact at `path`, loaded and run by another process, which starts now and is asked later."""

    def __init__(self, path: Path, device: str, like: Session) -> None:
        self.runtime, self.provider, self.signature = like.runtime, like.provider, like.signature
        self.metadata, self.device = like.metadata, device
        command = [sys.executable, "-m", __name__, str(path.resolve()), device]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        assert self._process.stdin and self._process.stdout and self._process.stderr
        try:
            _send(self._process.stdin, list(arrays))
            kind, value = _receive(self._process.stdout)
        except (EOFError, OSError) as cause:
            said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"the process ended: {said[-1] if said else 'without a word'}") from cause
        if kind == "error":
            raise RuntimeError(value)
        return list(value)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def _send(stream: IO[bytes], value: Any) -> None:
    content = pickle.dumps(value)
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    return pickle.loads(stream.read(length))


def main(path: str, device: str) -> None:
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # nothing else may write between the answers
    session = read_session(Path(path), device)
    while True:
        try:
            arrays = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = ("outputs", session.run(arrays))
        except Exception as cause:
            answer = ("error", first_line(cause))
        _send(answers, answer)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
