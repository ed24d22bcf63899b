"""What a worker counts of the requests that it answers, for Prometheus. Travels inside archives.

Workers count in files under `$PROMETHEUS_MULTIPROC_DIR`, which `exposition.py` adds up; without that variable they
count for themselves alone and nobody asks.
"""

import functools
import os
import re
import time
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, values

from .slots import FOLDER_VARIABLE, take_slot

LATENCY_BUCKETS = (*(round(step * 10.0**power, 5) for power in range(-4, 1) for step in (1, 1.5, 2, 3, 5, 7)), 10.0)
"""Upper bounds in seconds, 0.1 ms to 10 s; a quantile is off by less than the distance of two neighbours."""

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUEST_START = ("X-Request-Start", "x-request-start")
"""A proxy may say in it when the request reached it: `t=` and the Unix time in s, ms or us."""

_START = re.compile(r"(?:t=)?(\d{1,20}(?:\.\d{1,9})?)")
_LONGEST = 3600.0
"""Seconds; what claims to be older has another clock, or is made up."""

Outcome = tuple[int, str]
"""The HTTP status of an answer and, with 500, the class of the Python exception."""


class _Histogram(Histogram):
    def observe_times(self, amount: float, times: int) -> None:
        """`times` observations of `amount` at the price of one: all requests of a batch take the same time."""
        self._sum.inc(amount * times)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(times)


@dataclass(frozen=True)
class _Families:
    handler_latency: _Histogram
    end_to_end_latency: Histogram
    batch_size: Histogram
    requests: Counter
    predictions: Counter
    workers: Gauge
    info: Gauge


@functools.cache
def _families() -> _Families:
    """Those of this process, whatever models it holds. In no registry: `exposition.py` reads the files."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        slot = take_slot(Path(folder))
        values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
    model = ("model", "version")
    return _Families(
        _Histogram(
            "deploypipe_handler_latency_seconds",
            "For each request, the time in the worker: from its batch's arrival to the answers",
            model, buckets=LATENCY_BUCKETS, registry=None,
        ),
        Histogram(
            "deploypipe_end_to_end_latency_seconds",
            "From the time in X-Request-Start to the answer, TorchServe's queue included; for requests that carry it",
            model, buckets=LATENCY_BUCKETS, registry=None,
        ),
        Histogram(
            "deploypipe_batch_size", "Requests that reached the worker together",
            model, buckets=BATCH_BUCKETS, registry=None,
        ),
        Counter(
            "deploypipe_requests", "Answers by HTTP status; with 500, error is the Python exception's class",
            (*model, "status", "error"), registry=None,
        ),
        Counter("deploypipe_predictions", "Images by the class that was predicted", (*model, "class"), registry=None),
        Gauge("deploypipe_workers", "Workers loaded and alive", model, multiprocess_mode="livesum", registry=None),
        Gauge(
            "deploypipe_model_info", "Which artifact answers; always 1", (*model, "artifact", "sha256"),
            multiprocess_mode="livemax", registry=None,
        ),
    )  # fmt: skip


class WorkerMetrics:
    """Of one model version in this worker."""

    def __init__(self, model: str, version: str, artifact: str, sha256: str) -> None:
        families = _families()
        self._model = (model, version)
        self._handler_latency = families.handler_latency.labels(*self._model)
        self._end_to_end_latency = families.end_to_end_latency.labels(*self._model)
        self._batch_size = families.batch_size.labels(*self._model)
        families.workers.labels(*self._model).set(1)
        families.info.labels(*self._model, artifact, sha256).set(1)
        # `labels` costs as much as what is done with it.
        self._outcome = functools.cache(lambda status, error: families.requests.labels(*self._model, status, error))
        self._class = functools.cache(lambda index: families.predictions.labels(*self._model, index))

    def batch(self, outcomes: Mapping[Outcome, int], seconds: float, ages: Iterable[float]) -> None:
        """One batch: its requests by outcome, the `seconds` it took, and the ages in seconds of those that said."""
        size = sum(outcomes.values())
        self._batch_size.observe(size)
        self._handler_latency.observe_times(seconds, size)
        for (status, error), count in outcomes.items():
            self._outcome(status, error).inc(count)
        for age in ages:
            self._end_to_end_latency.observe(age)

    def predicted(self, classes: Iterable[int]) -> None:
        """The index of each image's class."""
        for index, count in Counts(classes).items():
            self._class(index).inc(count)


def ages(context: Any, requests: int) -> Sequence[float]:
    """Seconds since the X-Request-Start of each request of a batch that has one; what makes no sense is left out."""
    found = []
    for i in range(requests):
        for name in REQUEST_START:
            if (text := context.get_request_header(i, name)) and (match := _START.fullmatch(text)):
                number = float(match[1])
                # 1e11 s is the year 5138: whatever is larger counts milliseconds, or microseconds.
                age = time.time() - number / (1.0 if number < 1e11 else 1e3 if number < 1e14 else 1e6)
                if 0.0 <= age <= _LONGEST:
                    found.append(age)
    return found
