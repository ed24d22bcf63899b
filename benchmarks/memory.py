"""What a running server takes of the memory, and how soon a killed worker answers again.

    python benchmarks/memory.py [--model lean-cnn] [--data digits]

It trains the network shortly, exports it as ONNX, serves it on this machine alone with two workers, sends 400 requests
and prints one table. All of it lies in a temporary folder and is stopped and removed at the end.

RSS is the resident memory of a process; pages that processes share count for each. PSS divides each page by the number
of processes that share it, so a sum of PSS is what the machine really lends; it is left out where the system does not
tell it. The time of a killed worker runs from SIGKILL to the first right answer that its successor gives: the other
worker is held (SIGSTOP) meanwhile, so nobody else can answer. Linux only.
"""

import argparse
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import psutil
from comparison import cells, machine
from startup import cpu_seconds

from deploypipe.bench.usage import family

PROJECT = Path(__file__).resolve().parents[1]
NAME = "model"
WARM_UP = 400
"""Requests before memory is read: both workers hold then what answering needs."""
PATIENCE = 120.0
"""Seconds to wait for a killed worker."""
HELD = 1.0
"""Seconds without an answer after which a request counts as taken by the worker that is held."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    rss: int
    pss: int | None
    """None where the system does not tell it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lean-cnn", help="an image classifier of the zoo [default: lean-cnn]")
    parser.add_argument("--data", default="digits", help="what it is trained on [default: digits]")
    parser.add_argument("--kills", type=int, default=3, help="how often a worker is killed [default: 3]")
    parser.add_argument("--runs", type=int, default=5, help="runs of `deploypipe ready` [default: 5]")
    asked = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("error: the memory of processes is read from /proc, which only Linux has")
    signal.signal(signal.SIGTERM, _terminated)
    with tempfile.TemporaryDirectory(prefix="deploypipe-memory-") as scratch:
        _take_home(Path(scratch))
        _say(f"training and exporting {asked.model} …")
        _package(Path(scratch), asked.model, asked.data)
        with serving(Path(scratch)) as (pid, port):
            _say("measuring …")
            rows = [*memory_rows(pid, port), *restart_rows(pid, port, asked.kills), *ready_rows(port, asked.runs)]
    print(f"`{asked.model}` as ONNX, two workers; {', '.join(f'{key} {value}' for key, value in machine().items())}\n")
    print(cells(["what", "figure"]), cells(["---", "---"]), *(cells(row) for row in rows), sep="\n")


@contextmanager
def serving(folder: Path) -> Iterator[tuple[int, int]]:
    """A server of the archives in `folder`/store, with two workers: its process id and its port. Always stopped."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    pid = None
    try:
        pid = int(_deploypipe(folder, "serve", "--detach", "--model-store", "store", "--workers", "2",
                              "--port", str(port))["pid"])  # fmt: skip
        yield pid, port
    finally:
        members = family(pid) if pid else []
        stop = [sys.executable, "-m", "deploypipe", "stop", "--port", str(port), "--drain", "0"]
        subprocess.run(stop, cwd=folder, capture_output=True, check=False)
        for process in members:  # psutil knows a process by its start, too: a number used again is another process
            if process.is_running():
                process.kill()


def memory_rows(pid: int, port: int) -> list[tuple[str, str]]:
    for _ in range(WARM_UP):
        _answer(port)
    leader, *others = family(pid)
    found = {f"JVM (process {pid})": memory_of(leader.pid)}
    for number, worker in enumerate(_workers(pid), 1):
        found[f"worker {number} (process {worker.pid})"] = memory_of(worker.pid)
    workers = {worker.pid for worker in _workers(pid)}
    rest = [process for process in others if process.pid not in workers]
    for process in rest:
        found[f"{process.name()} (process {process.pid})"] = memory_of(process.pid)
    shares = [memory.pss for memory in found.values() if memory.pss is not None]
    whole = Memory(sum(memory.rss for memory in found.values()), sum(shares) if len(shares) == len(found) else None)
    found["the whole server"] = whole
    return [(f"memory of {what}", _shown(memory)) for what, memory in found.items()]


def restart_rows(pid: int, port: int, kills: int) -> list[tuple[str, str]]:
    seconds = []
    for number in range(kills):
        _say(f"killing a worker, {number + 1} of {kills} …")
        seconds.append(seconds_to_answer(pid, port))
    row = "seconds from SIGKILL of a worker to the first right answer of its successor"
    return [(row, _spread(seconds))] if seconds else []


def seconds_to_answer(pid: int, port: int) -> float:
    """Kill one of the two workers and wait until its successor answers, the other one being held meanwhile."""
    held, killed = _workers(pid)
    wanted = _answer(port)
    held.suspend()
    waiting: list[threading.Thread] = []
    try:
        begun = time.monotonic()
        while not _holds_a_request(port, wanted, waiting):
            if time.monotonic() - begun > PATIENCE:
                sys.exit("error: no request reached the worker that is held")
        killed.kill()
        begun = time.monotonic()
        while not _answers(port, wanted):
            if time.monotonic() - begun > PATIENCE:
                sys.exit(f"error: the killed worker's successor gave no answer within {PATIENCE:g} s")
            time.sleep(0.02)
        seconds = time.monotonic() - begun
    finally:
        held.resume()
    for thread in waiting:
        thread.join()
    return seconds


def _holds_a_request(port: int, wanted: dict[str, Any], waiting: list[threading.Thread]) -> bool:
    """Send a request, and say whether the worker that is held has it: it hangs while the next one is answered. From
    then on that worker takes no other."""
    thread = threading.Thread(target=_answers, args=(port, wanted), daemon=True)
    thread.start()
    waiting.append(thread)
    thread.join(HELD)
    return thread.is_alive() and _answers(port, wanted) and thread.is_alive()


def ready_rows(port: int, runs: int) -> list[tuple[str, str]]:
    argv = ["-m", "deploypipe", "ready", "--port", str(port)]
    # The worker that was killed last has just come back: not ready is what it may say for a moment.
    begun = time.monotonic()
    while (done := subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False)).returncode:
        if time.monotonic() - begun > PATIENCE:
            sys.exit(f"error: `deploypipe ready` ended with {done.returncode}: {done.stderr.strip()}")
        time.sleep(0.5)
    seconds = [cpu_seconds(*argv) for _ in range(runs)]
    return [("processor time of `deploypipe ready` on this server, seconds", _spread(seconds))] if seconds else []


def memory_of(pid: int) -> Memory:
    """Of a process, as the kernel accounts for it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return Memory(int(psutil.Process(pid).memory_info().rss), None)
    kilobytes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith("kB")}
    return Memory(kilobytes["Rss:"] * 1024, kilobytes["Pss:"] * 1024)


def _package(folder: Path, model: str, data: str) -> None:
    options = ["--set", "epochs=2.0", "--device", "cpu", "--no-pictures"]
    _deploypipe(folder, "train", "--model", model, "--data", data, *options, "--out", "run")
    _deploypipe(folder, "export", "--run", "run", "--format", "onnx")
    _deploypipe(folder, "package", "--run", "run", "--name", NAME, "--model-store", "store")


def _take_home(folder: Path) -> None:
    """This process and its children keep their records below `folder`: nothing of the user's is read or written."""
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    paths = filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")])
    os.environ |= {"HOME": str(folder), "PYTHONPATH": os.pathsep.join(paths)}


def _deploypipe(folder: Path, *argv: str) -> dict[str, Any]:
    """What the command answers; ends the program where it fails."""
    process = subprocess.Popen([sys.executable, "-m", "deploypipe", *argv, "--json"], cwd=folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        printed, said = process.communicate()
    except BaseException:
        process.terminate()  # and not killed: `serve` ends what it has started
        process.communicate(timeout=PATIENCE)
        raise
    if process.returncode:
        sys.exit(f"error: deploypipe {argv[0]} ended with {process.returncode}: {said.strip() or printed}")
    return dict(json.loads(printed))


def _workers(pid: int) -> list[psutil.Process]:
    """The two, in the order of their start. Ends the program where there are not two within the time."""
    begun = time.monotonic()
    while True:
        found = [process for process in family(pid)[1:] if "python" in process.name()]
        if len(found) == 2:
            return sorted(found, key=lambda process: process.create_time())
        if time.monotonic() - begun > PATIENCE:
            sys.exit(f"error: the server should have 2 workers and has {len(found)}")
        time.sleep(0.1)


def _body() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros((1, 1, 28, 28), dtype=np.uint8))
    return content.getvalue()


BODY = _body()


def _answer(port: int, timeout: float = 30.0) -> dict[str, Any]:
    """The server's prediction for a black image. OSError, HTTPException or ValueError where it gives none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", f"/predictions/{NAME}", BODY, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}: {content[:200]!r}")
        (prediction,) = json.loads(content)["predictions"]
        return dict(prediction)
    finally:
        connection.close()


def _answers(port: int, wanted: dict[str, Any]) -> bool:
    """Whether the answer is the `wanted` one."""
    try:
        found = _answer(port, PATIENCE)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return bool(found["class"] == wanted["class"] and abs(found["probability"] - wanted["probability"]) < 1e-4)


def _shown(memory: Memory) -> str:
    share = f"{memory.pss / 1e6:,.0f} MB PSS" if memory.pss is not None else "PSS unknown"
    return f"{memory.rss / 1e6:,.0f} MB RSS, {share}"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}, {len(values)} times)"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


if __name__ == "__main__":
    main()
