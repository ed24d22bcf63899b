r"""What a server survives, with figures: a killed worker, a killed front end, archives that go, a full disk, clients
that hold their connections, many large bodies, a steady load, and more than the server can take. Linux; the full disk
needs root.

    python benchmarks/serving/survival.py --store model_store --name mnist-cnn [--slow NAME] [--seconds 300] \
        [--out survival.json]

`--name` is an image classifier in the store; `--slow` is one that takes tens of milliseconds an image, for more than it
can take: of a fast one this client cannot ask as much. Client and server share this machine.
"""

import argparse
import collections
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
from PIL import Image

from deploypipe.client import Client
from deploypipe.contract.server import Server
from deploypipe.errors import ServingError
from deploypipe.serve import processes
from deploypipe.serve.torchserve.lifecycle import start
from deploypipe.serve.torchserve.readiness import status
from deploypipe.serve.torchserve.stopping import stop

Figures = dict[str, Any]
CONNECTIONS = 16
NEXT = "seconds to the next right answer"
_PATIENCE = 600.0
"""Seconds that anything here may take before it counts as not survived."""


def image(size: int = 28) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((size, size)).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Answer:
    begun: float
    """By time.monotonic(), seconds."""
    seconds: float
    status: int
    """0: the connection was cut, or nothing came in time."""
    right: bool
    """200, and the class that the quiet server gave."""
    told: str = ""
    """The body, where the status is not 200."""

    @property
    def ended(self) -> float:
        return self.begun + self.seconds


class Load:
    """While it is open, `connections` clients ask again and again, each as soon as it is answered, or all together at
    `rate` requests per second."""

    def __init__(
        self, server: Server, name: str, connections: int = CONNECTIONS, rate: float = 0, timeout: float = 30
    ) -> None:
        self._server, self._path, self._body = server, f"/predictions/{name}", image()
        self.connections = connections
        self._interval = connections / rate if rate else 0.0
        self._timeout = timeout
        self._wanted = Client(server.url, name).predict([self._body])[0].label
        self._stop = threading.Event()
        self._answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._ask, args=(i / connections,)) for i in range(connections)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> list[Answer]:
        """In the order in which they came."""
        return sorted(self._answers, key=lambda answer: answer.ended)

    def right_since(self, moment: float) -> Answer | None:
        """The first right answer to a request that was sent after `moment`."""
        return next((answer for answer in self.answers if answer.right and answer.begun > moment), None)

    def _ask(self, phase: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=self._timeout)
        due = time.monotonic() + phase * self._interval
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            begun = time.monotonic()
            due = max(due + self._interval, begun) if self._interval else begun
            code, right, told = 0, False, ""
            try:
                connection.request("POST", self._path, self._body)
                response = connection.getresponse()
                code, content = response.status, response.read()
                right = code == 200 and json.loads(content)["class"] == self._wanted
                told = content.decode(errors="replace") if code != 200 else ""
            except (OSError, http.client.HTTPException):
                connection.close()
            self._answers.append(Answer(begun, time.monotonic() - begun, code, right, told))
        connection.close()


@contextlib.contextmanager
def serving(store: Path, folder: Path, **options: Any) -> Iterator[Server]:
    server = start(store, port=0, folder=folder, timeout=_PATIENCE, **options)
    try:
        yield server
    finally:
        with contextlib.suppress(ServingError):
            stop(folder=folder)


def workers_of(server: Server) -> list[psutil.Process]:
    return [member for member in processes.members(server.process) if member.pid != server.pid]


def wait_for(done: Callable[[], object], what: str, seconds: float = _PATIENCE) -> float:
    """Seconds until `done()`; TimeoutError after `seconds`."""
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"{what} took more than {seconds:g} s")
        time.sleep(0.02)
    return time.monotonic() - begun


def killed_worker(server: Server, name: str, before: float = 2, after: float = 2) -> Figures:
    """SIGKILL to one worker under load: what is lost, and for how long nothing is answered."""
    with Load(server, name) as load:
        time.sleep(before)
        victim = workers_of(server)[0]
        killed = time.monotonic()
        victim.kill()
        wait_for(lambda: load.right_since(killed), "a right answer")
        time.sleep(after)
    answers = load.answers
    lost = [answer for answer in answers if not answer.right]
    first = load.right_since(killed)
    assert first is not None
    return {
        "requests": len(answers),
        "lost": len(lost),
        "lost by status (0: no answer)": dict(collections.Counter(answer.status for answer in lost)),
        "seconds until a lost request is told": _most(answer.ended - killed for answer in lost),
        NEXT: round(first.ended - killed, 2),
        "slowest answer, seconds": _most(answer.seconds for answer in answers),
        "wrong answers": sum(answer.status == 200 and not answer.right for answer in answers),
    }


def killed_worker_and_our_client(server: Server, name: str, seconds: float = 2) -> Figures:
    """The same, asked by `Client`, which sends again what was lost."""
    done = threading.Event()
    answered: list[float] = []
    failed: list[str] = []

    def ask() -> None:
        with Client(server.url, name) as client:
            while not done.is_set():
                begun = time.monotonic()
                try:
                    client.predict([image()])
                except ServingError as error:
                    failed.append(str(error))
                answered.append(time.monotonic() - begun)

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    workers_of(server)[0].kill()
    count = len(answered)
    wait_for(lambda: len(answered) > count + 4 * CONNECTIONS, "an answer")
    done.set()
    for thread in threads:
        thread.join()
    return {"requests": len(answered), "failed": len(failed), "slowest, seconds": _most(answered)}


def killed_front_end(store: Path, folder: Path, **options: Any) -> Figures:
    """SIGKILL to the JVM: what `status` says, what stays, and whether the next start is clean."""
    with serving(store, folder, **options) as server:
        workers = workers_of(server)
        os.kill(server.pid, signal.SIGKILL)
        seen = wait_for(lambda: status(folder=folder).state != "running", "status")
        found = status(folder=folder)
        begun = time.monotonic()
        _, alive = psutil.wait_procs(workers, timeout=10)
        gone = time.monotonic() - begun
        begun = time.monotonic()
        again = start(store, port=server.port, folder=folder, timeout=_PATIENCE, **options)
        seconds = time.monotonic() - begun
        left = processes.members(server.process)
        return {
            "status says": found.state,
            "seconds until status says so": round(seen, 2),
            "workers that outlive it": len(alive),
            "seconds until they are gone": round(gone, 2),
            "seconds of the next start": round(seconds, 1),
            "ready then": status(folder=again.folder).ready,
            "processes left of the first": len(left),
        }


def archive_gone(server: Server, name: str) -> Figures:
    """The archive is overwritten and deleted, and a worker restarts from what TorchServe unpacked."""
    path = next(archive.path for archive in server.archives if archive.name == name)
    content = path.read_bytes()
    try:
        path.write_bytes(b"no archive")
        with Load(server, name) as load:
            time.sleep(0.5)
        path.unlink()
        after = killed_worker(server, name, 0.5, 0.5)
        return {
            "overwritten: requests": len(load.answers),
            "overwritten: right": sum(answer.right for answer in load.answers),
            "deleted: seconds to the next right answer after a worker's death": after[NEXT],
            "deleted: wrong answers": after["wrong answers"],
        }
    finally:
        path.write_bytes(content)


def full_disk(server: Server, name: str) -> Figures:
    """The disk with the server's folder (logs and temporary files) is full; then a worker dies, too."""
    ballast = server.folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    try:
        with Load(server, name) as load:
            time.sleep(1)
        right = sum(answer.right for answer in load.answers)
        after = killed_worker(server, name, 0.5, 0.5)
        return {
            "requests": len(load.answers),
            "right": right,
            "seconds to the next right answer after a worker's death": after[NEXT],
            "wrong answers": after["wrong answers"],
        }
    finally:
        ballast.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 24) -> Iterator[Path]:
    """`folder` on a file system of its own. PermissionError where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"]
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip() or "mount failed")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def slow_clients(server: Server, name: str, count: int = 200, seconds: float = 3) -> Figures:
    """`count` clients send half a request and hold their connections, while others ask on."""
    with Load(server, name) as quiet:
        time.sleep(seconds)
    half = f"POST /predictions/{name} HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n".encode() + b"x" * 500
    with contextlib.ExitStack() as held:
        for _ in range(count):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port))).sendall(half)
        with Load(server, name) as load:
            time.sleep(seconds)
    return {
        "held connections": count,
        "requests meanwhile": len(load.answers),
        "not right": sum(not answer.right for answer in load.answers),
        "median ms before": _median_ms(quiet.answers),
        "median ms meanwhile": _median_ms(load.answers),
        "slowest ms meanwhile": round(1000 * max(answer.seconds for answer in load.answers)),
    }


def large_bodies(server: Server, name: str, size: int, counts: tuple[int, ...] = (64, 128, 256)) -> Figures:
    """Bodies of `size` bytes, all at once: how many are answered, and whether the server answers then."""
    figures: Figures = {}
    body = b"x" * size

    def send(codes: list[int]) -> None:
        try:
            code = httpx.post(f"{server.url}/predictions/{name}", content=body, timeout=60, trust_env=False).status_code
        except httpx.HTTPError:
            code = 0
        codes.append(code)

    for count in counts:
        codes: list[int] = []
        threads = [threading.Thread(target=send, args=(codes,)) for _ in range(count)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        figures[f"{count} at once: seconds, by status (0: no answer)"] = (
            f"{time.monotonic() - begun:.1f}, {dict(collections.Counter(codes))}"
        )
        figures[f"{count} at once: ready afterwards"] = status(folder=server.folder).ready
    return figures


@dataclass(frozen=True)
class Resources:
    """Of all processes of a server together."""

    megabytes: float
    descriptors: int
    log_bytes: int


def resources(server: Server) -> Resources:
    members = processes.members(server.process)
    memory = sum(member.memory_info().rss for member in members)
    logs = sum(path.stat().st_size for path in (server.folder / "logs").iterdir())
    return Resources(memory / 2**20, sum(member.num_fds() for member in members), logs)


def watched(server: Server, seconds: float) -> list[Resources]:
    """Ten times in `seconds`, from a tenth of them on."""
    taken = []
    time.sleep(seconds / 10)
    for _ in range(10):
        taken.append(resources(server))
        time.sleep(seconds * 0.09)
    return taken


def steady_load(server: Server, name: str, seconds: float, share: float = 0.8) -> Figures:
    """`share` of what the server does at most for this client; memory and descriptors from a tenth of the time on."""
    trial = min(5.0, seconds / 4)
    with Load(server, name) as most:
        time.sleep(trial)
    rate = share * len(most.answers) / trial
    with Load(server, name, rate=rate) as load:
        taken = watched(server, seconds)
    return {
        "seconds": seconds,
        "requests per second": round(len(load.answers) / seconds, 1),
        "requests": len(load.answers),
        "not right": sum(not answer.right for answer in load.answers),
        "p50, p99, max ms": _times_ms(load.answers),
        "megabytes": [round(each.megabytes) for each in taken],
        "descriptors": [each.descriptors for each in taken],
        "log bytes": taken[-1].log_bytes,
    }


def overload(server: Server, name: str, within: float, seconds: float, times: float = 4) -> Figures:
    """`times` what the server does at most for this client, over so many connections that a queue without a bound would
    hold requests for twice `times` the `within` seconds that it states."""
    trial = min(3.0, seconds / 2)
    with Load(server, name) as most:
        time.sleep(trial)
    pace = sum(answer.right for answer in most.answers) / trial
    with Load(server, name, CONNECTIONS + int(2 * times * within * pace), times * pace) as load:
        taken = watched(server, seconds)
    accepted = [answer for answer in load.answers if answer.status == 200]
    refused = [answer for answer in load.answers if answer.status == 503]
    return {
        "stated ms": 1000 * within,
        "connections": load.connections,
        "offered": len(load.answers),
        "offered per second": round(len(load.answers) / seconds, 1),
        "accepted": len(accepted),
        "accepted: not right": sum(not answer.right for answer in accepted),
        "accepted: p50, p99, max ms": _times_ms(accepted),
        "refused": len(refused),
        "refused: p50, p99, max ms": _times_ms(refused),
        "refused: told": sorted({answer.told for answer in refused}),
        "neither": len(load.answers) - len(accepted) - len(refused),
        "megabytes": [round(each.megabytes) for each in taken],
        "log bytes": [each.log_bytes for each in taken],
    }


def _times_ms(answers: list[Answer]) -> list[float]:
    """p50, p99 and max; of no answers none."""
    times = sorted(answer.seconds for answer in answers)
    return [round(1000 * times[int(q * (len(times) - 1))], 1) for q in (0.5, 0.99, 1) if times]


def _most(values: Any) -> float:
    return round(max(values, default=0.0), 2)


def _median_ms(answers: list[Answer]) -> float:
    return round(1000 * statistics.median(answer.seconds for answer in answers), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("model_store"))
    parser.add_argument("--name", required=True, help="an image classifier in the store")
    parser.add_argument("--slow", help="one to overload; without it that is left out")
    parser.add_argument("--seconds", type=float, default=60, help="of the steady load")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    from deploypipe.serve.defaults import ANSWER_WITHIN
    from deploypipe.serve.service.limits import MAX_BODY

    options: dict[str, Any] = {"models": [asked.name], "workers": asked.workers}
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="deploypipe-") as scratch:
        folder, store = Path(scratch), asked.store.resolve()

        def measured(what: str, measure: Callable[[Server], Figures]) -> None:
            with serving(store, folder / "server", **options) as server:
                found[what] = measure(server)
            print(f"{what}: done", file=sys.stderr, flush=True)

        measured("worker killed", lambda server: killed_worker(server, asked.name))
        measured("worker killed, our client", lambda server: killed_worker_and_our_client(server, asked.name))
        found["front end killed"] = killed_front_end(store, folder / "server", **options)
        measured("archive gone", lambda server: archive_gone(server, asked.name))
        try:
            with small_disk(folder / "disk") as disk, serving(store, disk / "server", **options) as server:
                found["disk full"] = full_disk(server, asked.name)
        except PermissionError as cause:
            found["disk full"] = {"not measured": str(cause)}
        measured("slow clients", lambda server: slow_clients(server, asked.name))
        measured("large bodies", lambda server: large_bodies(server, asked.name, MAX_BODY))
        measured("steady load", lambda server: steady_load(server, asked.name, asked.seconds))
        if asked.slow:
            options["models"] = [asked.slow]
            measured("overload", lambda server: overload(server, asked.slow, ANSWER_WITHIN, 10))
    print("| what | figure | value |\n| --- | --- | --- |")
    for what, figures in found.items():
        for figure, value in figures.items():
            print(f"| {what} | {figure} | {value} |")
    if asked.out:
        asked.out.write_text(json.dumps({"cores": os.cpu_count(), "figures": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
