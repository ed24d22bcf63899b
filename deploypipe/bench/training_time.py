"""How fast a training is: the time to an accuracy over several seeds, examples per second, peak memory, and where the
time goes."""

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from deploypipe.contract.run import Run
from deploypipe.errors import UsageError
from deploypipe.evaluate import Metrics
from deploypipe.train import TrainConfig, train


@dataclass(frozen=True)
class SeedTime:
    seed: int
    accuracy: float
    """At the end, on the test set."""
    seconds: float
    """Of training: evaluating the test set and writing files are not counted."""
    seconds_to_target: float | None
    """At the first of the evaluations that reached it; None: none did."""


@dataclass(frozen=True)
class TrainingTimes:
    model: str
    data: str
    device: str
    threads: int
    target: float
    seeds: tuple[SeedTime, ...]
    images_per_second: float
    """Median over the seeds."""
    phases: dict[str, float]
    """Share of the time, over all seeds."""
    peak_memory: int
    """Bytes: of the process on the CPU, of the tensors on a GPU."""

    @property
    def to_target(self) -> list[float]:
        """Seconds of the seeds that reached it, in order of size."""
        return sorted(found.seconds_to_target for found in self.seeds if found.seconds_to_target is not None)

    @property
    def spread(self) -> dict[str, float] | None:
        """Of `to_target`; None where no seed reached it."""
        times = self.to_target
        return {"median": statistics.median(times), "min": times[0], "max": times[-1]} if times else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"seconds_to_target": self.spread}


def time_training(
    config: TrainConfig,
    *,
    seeds: int = 5,
    target: float = 0.99,
    on_seed: Callable[[SeedTime], None] = lambda done: None,
    warn: Callable[[str], None] = lambda message: None,
) -> TrainingTimes:
    """Train `config` with `seeds` seeds, from its own on, into folders that are removed again.

    The test set is evaluated after each tenth of a training, off its clock: these evaluations measure, nothing is
    chosen by them. UsageError for what has no accuracy, else the errors of `train`.
    """
    if seeds < 1:
        raise UsageError(f"{seeds} seeds are none to train with")
    if not 0 < target <= 1:
        raise UsageError(f"an accuracy of {target} is none to reach", "It is a fraction of 1: 0.99.")
    timed, runs = [], []
    for seed in range(config.seed, config.seed + seeds):
        first = _FirstTime(target)
        with tempfile.TemporaryDirectory(prefix="deploypipe-bench-") as scratch:
            run = train(dataclasses.replace(config, seed=seed), Path(scratch) / "run", warn=warn, on_evaluation=first)
        if not run.document["dataset"]:
            raise UsageError(f"{config.model} is not trained: there is nothing to time")
        if "accuracy" not in run.document["metrics"]:
            raise UsageError(f"{config.model} has no accuracy to reach", "Time a classifier.")
        runs.append(run)
        timed.append(SeedTime(seed, run.document["metrics"]["accuracy"], run.document["seconds"], first.reached))
        on_seed(timed[-1])
    document = runs[0].document
    return TrainingTimes(
        model=runs[0].model,
        data=document["dataset"]["name"],
        device=document["device"],
        threads=document["threads"],
        target=target,
        seeds=tuple(timed),
        images_per_second=statistics.median(run.document["images_per_second"] for run in runs),
        phases=_shares(runs),
        peak_memory=_peak_memory(document["device"]),
    )


@dataclass
class _FirstTime:
    """Finds the first time at which a training is as good as asked."""

    target: float
    reached: float | None = None

    def __call__(self, seconds: float, found: Metrics) -> None:
        if self.reached is None and (found.accuracy or 0.0) >= self.target:
            self.reached = seconds


def _shares(runs: list[Run]) -> dict[str, float]:
    phases = [run.document["phases"] for run in runs]
    seconds = {name: sum(found[name] for found in phases) for name in phases[0] if name != "evaluations"}
    return {name: value / sum(seconds.values()) for name, value in seconds.items()}


def _peak_memory(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
