"""An artifact in a Python process of its own, which has nothing of this one: no model source, no registered operators,
no settings that earlier code has changed.

The process imports what the format's reader needs and nothing else: for ONNX there is no torch in it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from deploypipe.contract.tensors import Array
from deploypipe.formats.processor_time import Overrun
from deploypipe.formats.session import Session
from deploypipe.parity.answering import Message, ProcessEnded, receive, send
from deploypipe.parity.nursery import nursery_for


class FreshProcess(Session):
    """The artifact at `path`, loaded and run by another process, which starts now and is asked later."""

    def __init__(self, path: Path, device: str, like: Session) -> None:
        """`like`: the artifact as it was loaded here, which says how it is run and what it takes."""
        self.runtime, self.provider, self.signature = like.runtime, like.provider, like.signature
        self.metadata, self.device = like.metadata, device
        self._seconds: float | None = None
        self._nursery = nursery_for(path)
        (its_input, questions), (answers, its_output), (errors, its_errors) = os.pipe(), os.pipe(), os.pipe()
        self._questions, self._answers = os.fdopen(questions, "wb"), os.fdopen(answers, "rb")
        self._errors = os.fdopen(errors, "rb")
        theirs = its_input, its_output, its_errors
        try:
            self._number = self._nursery.start(path, device, theirs)
        finally:
            for stream in theirs:
                os.close(stream)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        try:
            send(self._questions, Message(arrays, seconds=self._seconds))
            message = receive(self._answers)
        except (EOFError, OSError) as cause:
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            raise ProcessEnded(f"the process ended: {said[-1] if said else 'without a word'}") from cause
        if message.overrun:
            raise Overrun(f"no end after {self._seconds:g} s of processor time")
        if message.problem:
            raise RuntimeError(message.problem)
        return list(message.arrays)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        self._seconds = seconds
        try:
            yield
        finally:
            self._seconds = None

    def close(self) -> None:
        self._nursery.end(self._number)
        for stream in (self._questions, self._answers, self._errors):
            with suppress(OSError):  # what was not read any more
                stream.close()
