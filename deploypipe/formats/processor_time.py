"""How much processor time a call may use, and how one that uses more is ended. This module travels inside archives.

It is the processor time of the calling thread: seconds on the wall would say how busy the machine is, and the time of
all threads how many cores it has.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHORTEST_WAIT = 0.01
"""Seconds between two looks at the clock, at least."""


class Overrun(RuntimeError):
    """A call used more processor time than it was given."""


@contextmanager
def at_most(seconds: float, stop: Callable[[], None]) -> Iterator[None]:
    """When this thread has used `seconds` of processor time in the block, `stop` is called from another thread; what
    the block then raises becomes an Overrun."""
    clock = _clock_of_this_thread()
    end, finished, stopped = clock() + seconds, threading.Event(), threading.Event()

    def watch() -> None:
        # A thread cannot use more processor time than passes on the wall: until then nothing need be asked.
        while not finished.wait(max(end - clock(), SHORTEST_WAIT)):
            if clock() >= end:
                stopped.set()
                stop()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except Exception as cause:
        if stopped.is_set():
            raise Overrun(f"no end after {seconds:g} s of processor time") from cause
        raise
    finally:
        finished.set()
        watcher.join()


def _clock_of_this_thread() -> Callable[[], float]:
    """To be read by any thread; where the system has no such clock, the whole process's."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)
