"""An artifact in a Python process of its own, which has nothing of this one: no model source, no registered operators,
no settings that earlier code has changed. Run as a module it is that process.

The process imports what the format's reader needs and nothing else: for ONNX there is no torch in it. Both sides send
messages: the length of a JSON header, the header, and the bytes of the arrays that the header describes.
"""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from deploypipe.contract.signature import dtype_name
from deploypipe.contract.tensors import Array, as_dtype
from deploypipe.errors import UsageError, first_line
from deploypipe.formats import format_of
from deploypipe.formats.processor_time import Overrun, at_most
from deploypipe.formats.session import Session

_LENGTH = struct.Struct("!Q")
OVERRUN = 75
"""The exit status of a process whose call used too much processor time: nothing but its end ends every runtime."""
_ROOT = Path(__file__).parents[2]
"""Where this package lies: the other process imports the same one."""


class FreshProcess(Session):
    """The artifact at `path`, loaded and run by another process, which starts now and is asked later."""

    def __init__(self, path: Path, device: str, like: Session) -> None:
        """`like`: the artifact as it was loaded here, which says how it is run and what it takes."""
        self.runtime, self.provider, self.signature = like.runtime, like.provider, like.signature
        self.metadata, self.device = like.metadata, device
        # -P: the folder that one happens to be in, where the model's source may lie, is not imported from.
        command = [sys.executable, "-P", "-m", __name__, str(path.resolve()), device]
        where = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._seconds: float | None = None
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": where},
        )  # fmt: skip

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        assert self._process.stdin and self._process.stdout and self._process.stderr
        try:
            _send(self._process.stdin, arrays, seconds=self._seconds)
            message = _receive(self._process.stdout)
        except (EOFError, OSError) as cause:
            if self._process.wait() == OVERRUN:
                raise Overrun(f"no end after {self._seconds:g} s of processor time") from cause
            said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"the process ended: {said[-1] if said else 'without a word'}") from cause
        if message.problem:
            raise RuntimeError(message.problem)
        return message.arrays

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        self._seconds = seconds
        try:
            yield
        finally:
            self._seconds = None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class _Message:
    arrays: list[Array]
    problem: str
    """What the other side could not do; "" where it could."""
    seconds: float | None
    """How much processor time the call may use; None is without end."""


def _send(stream: IO[bytes], arrays: Sequence[Array], problem: str = "", seconds: float | None = None) -> None:
    described = [{"dtype": dtype_name(array.dtype), "shape": array.shape} for array in arrays]
    header = json.dumps({"problem": problem, "seconds": seconds, "arrays": described}).encode()
    stream.write(_LENGTH.pack(len(header)) + header)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def _receive(stream: IO[bytes]) -> _Message:
    """EOFError when the other side has ended."""
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    header: dict[str, Any] = json.loads(_read(stream, length))
    arrays = []
    for described in header["arrays"]:
        dtype, shape = as_dtype(described["dtype"]), described["shape"]
        content = bytearray(_read(stream, dtype.itemsize * int(np.prod(shape, dtype=np.int64))))
        arrays.append(np.frombuffer(content, dtype).reshape(shape) if content else np.empty(shape, dtype))
    return _Message(arrays, header["problem"], header["seconds"])


def _read(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def main(path: Path, device: str) -> None:
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # nothing else may write between the answers
    if not path.is_file():
        raise UsageError(f"no artifact at {path}")
    session = format_of(path).read(path, device)
    while True:
        try:
            message = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            with nullcontext() if message.seconds is None else at_most(message.seconds, lambda: os._exit(OVERRUN)):
                outputs = session.run(message.arrays)
        except Exception as cause:
            _send(answers, [], first_line(cause) or type(cause).__name__)
        else:
            _send(answers, outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
