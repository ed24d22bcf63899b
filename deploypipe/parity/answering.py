"""The other side of a fresh process: messages through its pipes, and whoever answers them with an artifact.

A message is the length of a JSON header, the header, and the bytes of the arrays that the header describes. Nothing
here imports torch: a process for ONNX has none.
"""

import json
import os
import struct
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from deploypipe.contract.signature import dtype_name
from deploypipe.contract.tensors import Array, as_dtype
from deploypipe.errors import UsageError, first_line
from deploypipe.formats import format_of
from deploypipe.formats.processor_time import at_most

_LENGTH = struct.Struct("!Q")


class ProcessEnded(RuntimeError):
    """A call ended the process that was to answer it, as runtimes do where a check of a kernel's own fails."""


@dataclass(frozen=True)
class Message:
    arrays: Sequence[Array] = ()
    problem: str = ""
    """What the other side could not do; "" where it could."""
    seconds: float | None = None
    """How much processor time the call may use; None is without end."""
    overrun: bool = False
    """It used more, and the process has ended."""


def send(stream: IO[bytes], message: Message) -> None:
    described = [{"dtype": dtype_name(array.dtype), "shape": array.shape} for array in message.arrays]
    header = json.dumps({**vars(message), "arrays": described}).encode()
    stream.write(_LENGTH.pack(len(header)) + header)
    for array in message.arrays:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> Message:
    """EOFError when the other side has ended."""
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    header: dict[str, Any] = json.loads(_read(stream, length))
    arrays = []
    for described in header["arrays"]:
        dtype, shape = as_dtype(described["dtype"]), described["shape"]
        content = bytearray(_read(stream, dtype.itemsize * int(np.prod(shape, dtype=np.int64))))
        arrays.append(np.frombuffer(content, dtype).reshape(shape) if content else np.empty(shape, dtype))
    return Message(**{**header, "arrays": arrays})


def _read(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def answer_all(path: Path, device: str) -> None:
    """Load the artifact and answer what comes through standard input, until it ends."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # nothing else may write between the answers
    if not path.is_file():
        raise UsageError(f"no artifact at {path}")
    session = format_of(path).read(path, device)

    def give_up() -> None:
        send(answers, Message(overrun=True))
        os._exit(1)  # nothing else ends every runtime

    while True:
        try:
            asked = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            with nullcontext() if asked.seconds is None else at_most(asked.seconds, give_up):
                outputs = session.run(asked.arrays)
        except Exception as cause:
            send(answers, Message(problem=first_line(cause) or type(cause).__name__))
        else:
            send(answers, Message(outputs))
