"""What is fast, and how fast.

generator.py      the process that puts load on a server
payloads.py       what is sent
report.py         figures and a picture of a server under load
serving.py        latencies, throughput and errors of a server under load
training_time.py  the time that trainings take to an accuracy
usage.py          what a server's processes take of the machine

The names are loaded when they are first used: timing a training needs nothing of a server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploypipe.bench.report import write_serving
    from deploypipe.bench.serving import (
        Load,
        Measurement,
        Percentiles,
        ServingTimes,
        measure,
        parse_loads,
        time_serving,
    )
    from deploypipe.bench.training_time import SeedTime, TrainingTimes, time_training
    from deploypipe.bench.usage import Usage

_HOMES = {
    "Load": "serving",
    "Measurement": "serving",
    "Percentiles": "serving",
    "SeedTime": "training_time",
    "ServingTimes": "serving",
    "TrainingTimes": "training_time",
    "Usage": "usage",
    "measure": "serving",
    "parse_loads": "serving",
    "time_serving": "serving",
    "time_training": "training_time",
    "write_serving": "report",
}

__all__ = [
    "Load",
    "Measurement",
    "Percentiles",
    "SeedTime",
    "ServingTimes",
    "TrainingTimes",
    "Usage",
    "measure",
    "parse_loads",
    "time_serving",
    "time_training",
    "write_serving",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
