"""What is fast, and how fast: trainings (`training.py`) and servers (`serving.py`)."""

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
from deploypipe.bench.training import SeedTime, TrainingTimes, time_training
from deploypipe.bench.usage import Usage

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
