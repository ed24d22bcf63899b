"""SIGINT and SIGTERM that wait for the end of a step, so that the state that is saved is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from deploypipe.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stop:
    asked: bool = False


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Within the block the first signal sets `asked`, and a second one ends the block at once. In another thread than
    the main one nothing changes, because Python delivers signals to the main thread only."""
    stop = Stop()

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise Interrupted("training ended in the middle of a step", "The checkpoint before it can be resumed.")
        stop.asked = True

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, asked) for number in SIGNALS} if main else {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
