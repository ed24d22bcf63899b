"""The load generator: requests over connections that stay open, each answer timed and checked.

A program of its own, `python -P generator.py`, so that what it costs is seen apart from everything else; it shares the
cores with the server, so it imports nothing heavy (nothing of deploypipe either) and has no coroutine a request. It
reads a `Job` as JSON from standard input, and writes the lines "begun" and "ended" around what it measures, then what
it found, as JSON.

Closed loop: each connection sends its next request when the last one is answered. Open loop: requests arrive at a
rate, whether the server keeps up or not, as those of many independent users do (exponential gaps: a Poisson process);
a latency counts from the moment a request should have been sent (no coordinated omission).
"""

import asyncio
import base64
import gc
import json
import random
import signal
import sys
import time
from abc import ABC, abstractmethod
from array import array
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, cast

import httptools

try:
    # A third of what asyncio's own loop costs a request, and what the generator takes the server lacks.
    import uvloop as event_loop
except ImportError:  # Windows
    import asyncio as event_loop  # type: ignore[no-redef]

POOL = 512
"""Connections of an open loop, at most."""
_RETRY = 0.1
"""Seconds until a connection that was refused is tried again."""
_KNOWN = 256
"""Right answers remembered for each request, at most."""


@dataclass(frozen=True)
class PreparedRequest:
    content: bytes
    """Head and body."""
    classes: tuple[int, ...]
    """Of its images; the answer must say the same."""
    known: set[bytes] = field(default_factory=set)
    """Answers found right before: most come again to the byte, and comparing costs less than parsing."""

    def accepts(self, answer: bytes) -> bool:
        if answer in self.known:
            return True
        try:
            document = json.loads(answer)
            if isinstance(document, list):  # BentoML answers a batch of one
                (document,) = document
            predictions = document.get("predictions", [document])
            right = [prediction["class"] for prediction in predictions] == list(self.classes)
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        if right and len(self.known) < _KNOWN:
            self.known.add(answer)
        return right


@dataclass(frozen=True)
class Job:
    host: str
    port: int
    requests: tuple[PreparedRequest, ...]
    """Sent in turn."""
    connections: int | None
    """Of a closed loop."""
    rate: float | None
    """Requests a second of an open loop."""
    seconds: float
    warmup: float
    """Seconds of the same load before measuring."""
    timeout: float
    """Seconds until a request counts as not answered."""
    seed: int = 0
    """Of the arrivals."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Job":
        requests = tuple(
            PreparedRequest(base64.b64decode(item["content"]), tuple(item["classes"])) for item in document["requests"]
        )
        return cls(**{**document, "requests": requests})

    def to_json(self) -> dict[str, Any]:
        requests = [
            {"content": base64.b64encode(each.content).decode("ascii"), "classes": each.classes}
            for each in self.requests
        ]
        return {**vars(self), "requests": requests}


class Tally:
    """What became of the requests that were due between `begin` and `end`. Times are `time.perf_counter`'s."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin, self.end = begin, end
        self.sent = 0
        self.unsent = 0
        self.errors: Counter[str] = Counter()
        self.latencies = array("d")
        """Of right answers, in seconds."""
        self.delays = array("d")
        """Seconds from when a request was due to when it was sent."""

    def counts(self, due: float) -> bool:
        return self.begin <= due < self.end

    def send(self, due: float, now: float) -> None:
        if self.counts(due):
            self.sent += 1
            self.delays.append(now - due)

    def answer(self, due: float, error: str) -> None:
        if not self.counts(due):
            return
        if error:
            self.errors[error] += 1
        else:
            self.latencies.append(time.perf_counter() - due)

    def fail(self, due: float) -> None:
        """A request that found no server."""
        if self.counts(due):
            self.sent += 1
            self.errors["connection"] += 1

    def to_json(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "answered": len(self.latencies),
            "unsent": self.unsent,
            "errors": dict(sorted(self.errors.items())),
            "latency_ms": _percentiles(self.latencies),
            "delay_ms": _percentiles(self.delays),
        }


class Connection(asyncio.Protocol):
    """One connection, with one request under way at most."""

    def __init__(self, loop: "LoadLoop") -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._request: PreparedRequest | None = None
        self._due = 0.0
        self.sent = 0.0

    def send(self, request: PreparedRequest, due: float, now: float) -> None:
        self._request, self._due, self.sent = request, due, now
        self._transport.write(request.content)

    def give_up(self, error: str) -> None:
        """The request under way has failed, and with it the connection."""
        if self._request is not None:
            self._request = None
            self._loop.settled(self, self._due, error)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._loop.ready(self)

    def connection_lost(self, cause: Exception | None) -> None:
        self.give_up("connection")
        self._loop.lost(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.give_up("not HTTP")

    # -- called by the parser

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        request, status, answer = self._request, self._parser.get_status_code(), b"".join(self._parts)
        self._parts.clear()
        if request is None:  # nobody asked
            self._transport.abort()
            return
        self._request = None
        error = str(status) if status != 200 else "" if request.accepts(answer) else "wrong answer"
        self._loop.settled(self, self._due, error)
        if self._parser.should_keep_alive():
            self._loop.ready(self)
        else:
            self._transport.abort()


class LoadLoop(ABC):
    """Connections and the clock; when to send is the subclass's."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.requests = cycle(job.requests)
        begin = time.perf_counter() + job.warmup
        self.tally = Tally(begin, begin + job.seconds)
        self.stopped = False
        self._under_way: dict[Connection, None] = {}
        """In the order of sending."""
        self._opening: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def drive(self) -> None:
        """Send until the tally's end."""

    @abstractmethod
    def ready(self, connection: Connection) -> None:
        """It can take a request."""

    @abstractmethod
    def lost(self, connection: Connection) -> None:
        """It is closed."""

    @abstractmethod
    def refused(self) -> None:
        """A connection could not be opened."""

    async def run(self) -> dict[str, Any]:
        watch = asyncio.ensure_future(self._watch())
        driving = asyncio.ensure_future(self.drive())
        await _sleep_until(self.tally.begin)
        used = time.process_time()
        print("begun", flush=True)
        await driving
        used = time.process_time() - used
        print("ended", flush=True)
        self.stopped = True
        while self._under_way:  # the watch ends what is not answered
            await asyncio.sleep(0.01)
        watch.cancel()
        for task in self._opening:
            task.cancel()
        return {**self.tally.to_json(), "generator_cores": used / self.job.seconds}

    def open(self) -> None:
        task = asyncio.ensure_future(self._open())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def send(self, connection: Connection, due: float) -> None:
        now = time.perf_counter()
        self._under_way[connection] = None
        self.tally.send(due, now)
        connection.send(next(self.requests), due, now)

    def settled(self, connection: Connection, due: float, error: str) -> None:
        """The request that was due then is answered, or never will be."""
        del self._under_way[connection]
        self.tally.answer(due, error)

    async def _open(self) -> None:
        while not self.stopped:
            try:
                async with asyncio.timeout(self.job.timeout):
                    await asyncio.get_running_loop().create_connection(
                        lambda: Connection(self), self.job.host, self.job.port
                    )
                return
            except OSError:
                self.refused()
                await asyncio.sleep(_RETRY)

    async def _watch(self) -> None:
        """Give up what takes longer than the timeout."""
        while True:
            await asyncio.sleep(self.job.timeout / 20)
            late = time.perf_counter() - self.job.timeout
            for connection in [each for each in self._under_way if each.sent < late]:
                connection.give_up("timeout")


class ClosedLoop(LoadLoop):
    async def drive(self) -> None:
        for _ in range(self.job.connections or 0):
            self.open()
        await _sleep_until(self.tally.end)

    def ready(self, connection: Connection) -> None:
        if not self.stopped:
            self.send(connection, time.perf_counter())

    def lost(self, connection: Connection) -> None:
        if not self.stopped:
            self.open()

    def refused(self) -> None:
        self.tally.fail(time.perf_counter())


class OpenLoop(LoadLoop):
    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._due: deque[float] = deque()
        """Requests that are due and not sent: there is no connection free."""
        self._idle: list[Connection] = []
        self._connections = 0

    async def drive(self) -> None:
        assert self.job.rate is not None
        gaps = random.Random(self.job.seed)
        due = time.perf_counter()
        while (due := due + gaps.expovariate(self.job.rate)) < self.tally.end:
            await _sleep_until(due)
            self._due.append(min(due, time.perf_counter()))  # uvloop's timers are up to half a millisecond early
            if self._idle:
                self._send_oldest(self._idle.pop())
            elif self._connections < POOL:
                self._connections += 1
                self.open()
        await _sleep_until(self.tally.end)
        self.tally.unsent += sum(map(self.tally.counts, self._due))
        self._due.clear()

    def ready(self, connection: Connection) -> None:
        if self._due:
            self._send_oldest(connection)
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        if self._due and not self.stopped:
            self.open()
        else:
            self._connections -= 1

    def refused(self) -> None:
        if self._due:
            self.tally.fail(self._due.popleft())

    def _send_oldest(self, connection: Connection) -> None:
        self.send(connection, self._due.popleft())


async def _sleep_until(moment: float) -> None:
    if (seconds := moment - time.perf_counter()) > 0:
        await asyncio.sleep(seconds)


def _percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Nearest-rank percentiles in milliseconds; None of nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    ranks = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: 1e3 * ordered[max(0, -int(-share * len(ordered) // 1) - 1)] for name, share in ranks.items()}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    job = Job.from_json(json.load(sys.stdin))
    loop = ClosedLoop if job.rate is None else OpenLoop
    gc.freeze()
    print(json.dumps(event_loop.run(_run(loop, job))))


async def _run(kind: type[LoadLoop], job: Job) -> dict[str, Any]:
    return await kind(job).run()


if __name__ == "__main__":
    main()
