"""How many seconds each phase of a training took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """While a phase runs inside another one, the outer one's seconds stand still: together they are the time that has
    passed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._credit()
        self._running.append(name)
        try:
            yield
        finally:
            self._credit()
            self._running.pop()

    def _credit(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.add(self._running[-1], now - self._since)
        self._since = now

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def read(self, name: str) -> float:
        """Seconds of the phase so far."""
        self._credit()
        return self.seconds.get(name, 0.0)
