"""The same artifact under other settings of its runtime, which must not change what it returns."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from deploypipe.formats import format_of
from deploypipe.formats.reading import read_runner
from deploypipe.formats.runner import Runner
from deploypipe.formats.session import Session
from deploypipe.parity.probes import Probe

SMALL = 64


def settings(path: Path, device: str) -> dict[str, Callable[[], Runner]]:
    """What is different → how to load the artifact so: the number of threads, what the format has of its own (levels of
    optimisation), and every other device that is there."""
    cores = os.cpu_count() or 1
    found: dict[str, Callable[[], Runner]] = {"1 thread": partial(read_runner, path, device, 1)}
    if cores > 1:
        found[f"{cores} threads"] = partial(read_runner, path, device, cores)
    found |= {name: partial(_opened, variant) for name, variant in format_of(path).variants(path, device).items()}
    devices = {"cpu", *(["cuda"] if torch.cuda.is_available() else [])} - {device.partition(":")[0]}
    return found | {f"on {other}": partial(read_runner, path, other) for other in sorted(devices)}


def _opened(variant: Callable[[], Session]) -> Runner:
    return Runner(variant())


def representatives(probes: Sequence[Probe], cheap: Callable[[Probe], bool] = lambda probe: True) -> list[Probe]:
    """One probe a family: the largest `cheap` one with at most `SMALL` rows, the smallest where there is none."""
    chosen = []
    for family in dict.fromkeys(probe.family for probe in probes):
        members = [probe for probe in probes if probe.family == family]
        small = [probe for probe in members if probe.rows <= SMALL and cheap(probe)]
        chosen.append(max(small, key=lambda p: p.rows) if small else min(members, key=lambda p: p.rows))
    return chosen
