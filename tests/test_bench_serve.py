"""The load generator against real servers that misbehave: everything sent is accounted for, and only right answers
count."""

import asyncio
import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from deploypipe.bench import Load, Measurement, ServingTimes, measure, parse_loads, write_serving
from deploypipe.bench.generator import PreparedRequest, _percentiles
from deploypipe.bench.payloads import requests_for
from deploypipe.errors import ServingError, UsageError

Answer = bytes | None
"""Bytes to send; b"": close the connection; None: never answer."""
IMAGES, CLASSES = torch.zeros(2, 28, 28, dtype=torch.uint8), [7, 7]


def http(status: int, body: str) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def classified(label: int) -> bytes:
    return http(200, json.dumps({"class": label, "probability": 0.5, "probabilities": [0.5, 0.5]}))


RIGHT = classified(7)


@contextlib.contextmanager
def answering(behaviour: Callable[[int], Answer], delay: Callable[[int], float] = lambda n: 0) -> Iterator[str]:
    """The address of a server that answers its n-th request with `behaviour(n)`, after `delay(n)` seconds in which it
    answers nobody."""
    numbers = itertools.count()
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def run() -> None:
        turn, stopped, loop = asyncio.Lock(), asyncio.Event(), asyncio.get_running_loop()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
                    await reader.readexactly(int(length.partition(b":")[2]))
                    number = next(numbers)
                    async with turn:
                        await asyncio.sleep(delay(number))
                    answer = behaviour(number)
                    if answer is None:
                        await reader.read()  # until the client has had enough
                    if not answer:
                        break
                    writer.write(answer)
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
        port = listening.sockets[0].getsockname()[1]
        started.set_result((port, lambda: loop.call_soon_threadsafe(stopped.set)))
        await stopped.wait()
        listening.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    port, stop = started.result(timeout=10)
    try:
        yield f"http://127.0.0.1:{port}/predictions/x"
    finally:
        stop()
        thread.join()


def put(load: Load, url: str, *, seconds: float = 0.5, timeout: float = 5.0, images: int = 1) -> Measurement:
    requests = requests_for(url, IMAGES, CLASSES, images)
    return measure(url, requests, load, seconds=seconds, warmup=0.1, timeout=timeout)


def every_second(other: Answer) -> Callable[[int], Answer]:
    return lambda number: other if number % 2 else RIGHT


CASES = {
    "503": http(503, '{"code": 503}'),
    "400": http(400, "{}").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    "wrong answer": classified(3),
    "connection": b"",
    "not HTTP": b"hello\r\n\r\n",
}


@pytest.mark.parametrize("load", [Load(connections=4), Load(rate=100)], ids=str)
@pytest.mark.parametrize("kind", CASES)
def test_every_answer_that_is_not_right_is_counted_by_its_kind(kind: str, load: Load) -> None:
    with answering(every_second(CASES[kind])) as url:
        done = put(load, url)
    assert set(done.errors) == {kind}
    assert done.sent == done.answered + done.errors[kind] and done.answered > 1
    # Half of them, but for those that the warm-up and the end cut off.
    assert abs(done.answered - done.errors[kind]) <= 8
    assert 0 < done.latency.p50 <= done.latency.p95 <= done.latency.p99 <= done.latency.max


@pytest.mark.parametrize("body", ['{"class": "7"}', "{}", "7", "[]", '{"predictions": [{"class": 7}, {"class": 7}]}'])
def test_what_is_no_answer_is_a_wrong_one(body: str) -> None:
    assert not PreparedRequest(b"", (7,)).accepts(body.encode())


def test_several_images_need_their_classes_in_order() -> None:
    request = PreparedRequest(b"", (1, 2))
    right, wrong = ([{"class": label} for label in labels] for labels in ((1, 2), (2, 1)))
    for _ in range(2):  # the second time from memory
        assert request.accepts(json.dumps({"predictions": right}).encode())
        assert not request.accepts(json.dumps({"predictions": wrong}).encode())


def test_what_is_never_answered_is_a_timeout_and_holds_up_nobody_else() -> None:
    with answering(lambda number: None if number % 10 == 9 else RIGHT) as url:
        done = put(Load(connections=4), url, timeout=0.3)
    assert set(done.errors) == {"timeout"} and done.errors["timeout"] >= 2
    assert done.sent == done.answered + done.errors["timeout"] and done.answered > done.errors["timeout"]


def test_a_stall_is_felt_by_all_who_come_meanwhile() -> None:
    """One slow answer of a second: in an open loop the requests of that second waited too."""
    with answering(lambda number: RIGHT, delay=lambda number: number == 30) as url:
        done = put(Load(rate=100), url, seconds=2)
    assert done.sent == done.answered
    assert done.latency.max >= 900 and done.latency.p95 >= 300


def test_waiting_for_a_connection_is_part_of_the_latency() -> None:
    with answering(lambda number: RIGHT, delay=lambda number: number == 300) as url:
        done = put(Load(rate=3000), url, seconds=2)
    assert done.sent == done.answered and done.delay.max > 300
    assert all(getattr(done.latency, name) >= getattr(done.delay, name) for name in ("p50", "p95", "p99", "max"))


def test_what_cannot_be_sent_is_told() -> None:
    with answering(lambda number: RIGHT if number < 600 else None) as url:
        done = put(Load(rate=3000), url, seconds=1.0, timeout=1.0)
    assert done.unsent > 0 and done.sent == done.answered + sum(done.errors.values())
    assert 2000 < done.sent + done.unsent < 4000


def test_arrays_are_counted_by_image() -> None:
    body = json.dumps({"predictions": [{"class": 7}] * 5})
    with answering(lambda number: http(200, body)) as url:
        done = put(Load(connections=1), url, images=5)
    assert not done.errors and done.images_per_second == 5 * done.requests_per_second > 0


def test_a_server_that_is_not_there_or_never_right_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServingError, match=r"none of \d+ answers .* was right: connection x\d+"):
        put(Load(connections=2), f"http://127.0.0.1:{port}/predictions/x")
    with answering(lambda number: http(404, "{}")) as url, pytest.raises(ServingError, match=r"404 x\d+"):
        put(Load(rate=50), url)


def test_loads_are_read_from_the_command_line() -> None:
    assert parse_loads("1,64", "0.5") == [Load(connections=1), Load(connections=64), Load(rate=0.5)]
    assert parse_loads(None, None) == []
    for wrong in ("1,x", "1.5", "0", ","):
        with pytest.raises(UsageError, match="load"):
            parse_loads(wrong, None)


@pytest.mark.parametrize(
    "wrong", [{}, {"connections": 1, "rate": 1}, {"connections": 0}, {"rate": float("nan")}], ids=str
)
def test_a_load_is_one_or_the_other(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Load(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("url", "seconds"), [("https://127.0.0.1:1/x", 1.0), ("http://127.0.0.1:1/x", 0.0)])
def test_what_it_cannot_do_is_refused(url: str, seconds: float) -> None:
    with pytest.raises(UsageError, match=url):
        put(Load(connections=1), url, seconds=seconds)


def test_percentiles_are_by_nearest_rank() -> None:
    found = _percentiles([i / 1000 for i in range(100, 0, -1)])
    assert found == pytest.approx({"p50": 50, "p95": 95, "p99": 99, "max": 100})
    assert _percentiles([0.002]) == {"p50": 2, "p95": 2, "p99": 2, "max": 2} and _percentiles([]) is None


def test_figures_and_picture_lie_beside_each_other(tmp_path: Path) -> None:
    with answering(every_second(CASES["503"])) as url:
        done = [put(load, url, seconds=0.2) for load in (Load(connections=1), Load(connections=4), Load(rate=50))]
    times = ServingTimes(url, "x", "1.0", tuple(done))
    document, picture = write_serving(times, tmp_path / "found.json")
    assert picture == tmp_path / "found.png" and picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(document.read_text())
    assert found["schema"] == "deploypipe.bench.serving/1"
    assert [row["load"] for row in found["measurements"]] == [
        {"connections": 1, "rate": None}, {"connections": 4, "rate": None}, {"connections": None, "rate": 50}
    ]  # fmt: skip
    assert all(set(row["latency"]) == {"p50", "p95", "p99", "max"} for row in found["measurements"])
