"""How fast a server answers: throughput, latencies and errors under load, and what the server takes for it."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from deploypipe.bench import generator
from deploypipe.bench.generator import Job, PreparedRequest
from deploypipe.bench.payloads import requests_for
from deploypipe.bench.usage import Usage, UsageMeter
from deploypipe.client import client_for
from deploypipe.contract.archive import Archive
from deploypipe.contract.server import started_here, tokens_of
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.errors import ServingError, UsageError, first_line
from deploypipe.png import png
from deploypipe.serve.network import connects

SCHEMA = "deploypipe.bench.serving/1"
CONNECTIONS = (1, 8, 64)
SHARES = (0.2, 0.4, 0.6, 0.8)
"""Arrival rates where none is given, of the most that closed loops reached."""


_LOADS = "Give --connections 1,8,64 or --rate 100,200, for example."


@dataclass(frozen=True)
class Load:
    """A closed loop of so many `connections`, or an open one of so many requests a second (`rate`)."""

    connections: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if (self.connections is None) == (self.rate is None) or not 0 < self.amount < math.inf:
            raise UsageError(f"{self.connections} connections at a rate of {self.rate} are no load", _LOADS)

    def __str__(self) -> str:
        if self.rate is not None:
            return f"{self.rate:g} arrivals/s"
        return f"{self.connections} connection{'s' if self.connections != 1 else ''}"

    @property
    def amount(self) -> float:
        return (self.connections if self.rate is None else self.rate) or 0


def parse_loads(connections: str | None, rate: str | None) -> list[Load]:
    """Closed loops of "1,8,64" connections, then open ones at "100,200" requests a second. UsageError for what are no
    such numbers."""
    try:
        closed = [Load(connections=int(count)) for count in (connections or "").split(",") if connections]
        return closed + [Load(rate=float(arrivals)) for arrivals in (rate or "").split(",") if rate]
    except ValueError as cause:
        raise UsageError(f"no loads to measure with: {first_line(cause)}", _LOADS) from cause


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Measurement:
    load: Load
    images_per_request: int
    seconds: float
    sent: int
    """Requests that were due in these seconds and sent; each is answered or an error."""
    answered: int
    """With 200 and the right classes."""
    unsent: int
    """Due in these seconds, and never sent: all connections were taken."""
    errors: dict[str, int]
    """By HTTP status; "timeout", "connection" (refused, or cut before the answer), "wrong answer", "not HTTP"."""
    latency: Percentiles
    """Of the right answers: of a closed loop from sending, of an open one from when the request was due."""
    delay: Percentiles
    """From when a request was due to when it was sent: what of the latency is the generator's or the pool's."""
    generator_cores: float
    server: Usage | None
    """None: it runs elsewhere."""

    @property
    def requests_per_second(self) -> float:
        """Right answers."""
        return self.answered / self.seconds

    @property
    def images_per_second(self) -> float:
        return self.requests_per_second * self.images_per_request

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "server": asdict(self.server) | {"cores": self.server.cores} if self.server else None,
            "requests_per_second": self.requests_per_second,
            "images_per_second": self.images_per_second,
        }


@dataclass(frozen=True)
class ServingTimes:
    url: str
    model: str
    version: str
    measurements: tuple[Measurement, ...]

    def to_json(self) -> dict[str, Any]:
        rows = [measurement.to_json() for measurement in self.measurements]
        return {"schema": SCHEMA, **vars(self), "measurements": rows}


def time_serving(
    url: str,
    name: str | None = None,
    loads: Sequence[Load] = (),
    *,
    images_per_request: int = 1,
    seconds: float = 5.0,
    warmup: float = 1.0,
    timeout: float = 10.0,
    archive: Archive | None = None,
    report: Callable[[Measurement], None] = lambda done: None,
) -> ServingTimes:
    """Ask the model `name` of the server at `url` for its own packaged samples, under one load after the other.

    Without `loads`: closed loops of `CONNECTIONS`, then open ones at `SHARES` of the most that these reached. Each
    takes `warmup` + `seconds`; a request that is not answered within `timeout` seconds is an error. `archive`: what is
    served, where the server was not started here.

    UsageError where nothing says what is served or it is no classifier of grey images; ServingError when there is no
    server or no such model, or when no answer is right.
    """
    here, address = started_here(url), httpx.URL(url)
    if not connects(address.host, address.port or 80):
        raise ServingError(f"no server at {url}", "Start it with `deploypipe serve`.")
    with client_for(url, name) as client:
        name = client.name
        archive = archive or next((each for each in here.archives if each.name == name), None) if here else archive
        if archive is None and here:
            raise ServingError(f"{url} serves no model {name!r}", "`deploypipe status` lists those that it does.")
        if archive is None:
            raise UsageError(f"{url} was not started here: what {name!r} should answer is not known", "Give its --mar.")
        if archive.task != IMAGE_CLASSIFICATION or archive.sample.inputs[0].shape[1] != 1:
            raise UsageError(f"{name} is no classifier of grey images: there is no load for it")
        images, logits = archive.sample.inputs[0][:, 0], archive.sample.outputs[0]
        client.predict([png(images[0])])  # says what is wrong where the generator only counts
    token = tokens_of(here).get("inference") if here else None
    pid = here.pid if here else None
    requests = requests_for(
        f"{client.url}/predictions/{name}", images, logits.argmax(1).tolist(), images_per_request, token=token
    )

    def run(load: Load) -> Measurement:
        done = measure(client.url, requests, load, seconds=seconds, warmup=warmup, timeout=timeout, pid=pid)
        report(done)
        return done

    done = [run(load) for load in loads or [Load(connections=count) for count in CONNECTIONS]]
    if not loads:
        most = max(found.requests_per_second for found in done)
        done += [run(Load(rate=round(share * most, -1) or most)) for share in SHARES]
    return ServingTimes(client.url, name, archive.version, tuple(done))


def measure(
    url: str,
    requests: Sequence[PreparedRequest],
    load: Load,
    *,
    seconds: float,
    warmup: float = 1.0,
    timeout: float = 10.0,
    pid: int | None = None,
) -> Measurement:
    """Put `load` on the server at `url` from a process of its own. `pid`: the server's first process, where it runs
    here. ServingError when no answer is right."""
    address = httpx.URL(url)
    if address.scheme != "http" or not 0 < seconds < math.inf:
        raise UsageError(
            f"no load for {seconds:g} seconds on {url}", "Give a time above 0 and a plain http:// address."
        )
    job = Job(address.host, address.port or 80, tuple(requests), load.connections, load.rate, seconds, warmup, timeout)
    # -P: the files beside it are no modules of its own.
    argv = [sys.executable, "-P", generator.__file__]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            json.dump(job.to_json(), process.stdin)
            process.stdin.close()
            process.stdout.readline()
            meter = None if pid is None else UsageMeter(pid)
            process.stdout.readline()
            usage = meter.read() if meter else None
            said = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ServingError(f"the load generator ended with {process.returncode}")
    found = json.loads(said)
    if not found["answered"]:
        counted = ", ".join(f"{name} x{count}" for name, count in found["errors"].items()) or "none came"
        raise ServingError(f"none of {found['sent']} answers of {url} was right: {counted}", "See the server's logs.")
    return Measurement(
        load=load,
        images_per_request=len(requests[0].classes),
        seconds=seconds,
        sent=found["sent"],
        answered=found["answered"],
        unsent=found["unsent"],
        errors=found["errors"],
        latency=Percentiles(**found["latency_ms"]),
        delay=Percentiles(**found["delay_ms"]),
        generator_cores=found["generator_cores"],
        server=usage,
    )
