"""Clients that ask without pause, and remember what became of each request."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import httpx
from served_models import TIMEOUT


@dataclass(frozen=True)
class Asked:
    sent: float
    """By time.monotonic()."""
    status: int
    """0 where no server could be reached, -1 where the connection was cut before the answer was whole."""
    body: bytes


class Hammer:
    """While its block runs, `clients` threads post `body` to `url`, each over a connection that it keeps."""

    def __init__(self, url: str, body: bytes, clients: int, headers: Mapping[str, str] | None = None) -> None:
        self.asked: list[Asked] = []
        self._url, self._body, self._headers = url, body, dict(headers or {})
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with httpx.Client(timeout=TIMEOUT, trust_env=False, headers=self._headers) as http:
            while not self._done.is_set():
                sent = time.monotonic()
                try:
                    response = http.post(self._url, content=self._body)
                except httpx.ConnectError:
                    self.asked.append(Asked(sent, 0, b""))
                    time.sleep(0.01)  # refusals come at once, thousands a second
                except httpx.HTTPError as cause:
                    self.asked.append(Asked(sent, -1, repr(cause).encode()))
                else:
                    self.asked.append(Asked(sent, response.status_code, response.content))

    def wait_for(self, more: int) -> None:
        """Until so many further requests have an answer."""
        wanted, deadline = len(self.asked) + more, time.monotonic() + 60
        while len(self.asked) < wanted:
            assert time.monotonic() < deadline, f"{len(self.asked)} of {wanted} answers"
            time.sleep(0.01)

    def __enter__(self) -> "Hammer":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
