"""An artifact in a Python process of its own, which has nothing of this one: no model source, no registered operators,
no settings changed on the way. Run as a module it is that process."""

import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from deploypipe.artifact import read_runner
from deploypipe.errors import first_line
from deploypipe.formats.base import Runner

_LENGTH = struct.Struct("!Q")


class FreshProcess(Runner):
    """The artifact at `path`, loaded and run by another process, which starts now and is asked later."""

    def __init__(self, path: Path, device: str, runner: Runner) -> None:
        self.runtime, self.provider, self.signature = runner.runtime, runner.provider, runner.signature
        self.metadata, self.device = runner.metadata, device
        command = [sys.executable, "-m", __name__, str(path.resolve()), device]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *inputs: Tensor) -> list[Tensor]:
        assert self._process.stdin and self._process.stdout and self._process.stderr
        try:
            _send(self._process.stdin, inputs)
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
    buffer = BytesIO()
    torch.save(value, buffer)
    stream.write(_LENGTH.pack(buffer.tell()) + buffer.getvalue())
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    return torch.load(BytesIO(stream.read(length)), weights_only=True)


def main(path: str, device: str) -> None:
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # nothing else may write between the answers
    runner = read_runner(Path(path), device)
    while True:
        try:
            inputs = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = ("outputs", runner.run(*inputs))
        except Exception as cause:
            answer = ("error", first_line(cause))
        _send(answers, answer)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
