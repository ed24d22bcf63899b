"""What is mutated: honest modules, each with an honest artifact in each format, and the gate that judges mutants."""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from deploypipe.capture import Capture, capture
from deploypipe.contract.run import Run
from deploypipe.contract.signature import Axes
from deploypipe.errors import ParityError
from deploypipe.export import Plan, plan, plan_run, write_proven
from deploypipe.formats import FORMATS
from deploypipe.formats.reading import read_runner

from . import modules

BATCH = {0: "batch"}
TRAINED = "digits"


@dataclass(frozen=True)
class Rejection:
    reason: str
    culprit: str = ""
    """Where the artifact first departs from eager, as far as the gate found out."""


@dataclass(frozen=True, eq=False)
class Subject:
    """`plan` is what its honest artifacts must prove; of a trained one, `run` is where it lies."""

    name: str
    plan: Plan
    folder: Path
    run: Run | None = None
    written: dict[str, Path] = field(default_factory=dict)

    @property
    def captured(self) -> Capture:
        return self.plan.captured

    @property
    def module(self) -> nn.Module:
        return self.captured.module

    @property
    def example(self) -> tuple[Tensor, ...]:
        return self.captured.example_inputs

    @property
    def dynamic(self) -> Axes:
        return {
            spec.name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
            for spec in self.captured.signature.inputs
        }

    def honest(self, format: str) -> Path:
        """Its artifact as `deploypipe export` writes it."""
        if format not in self.written:
            path = self.folder / f"{self.name}{FORMATS[format].suffix}"
            write_proven(self.plan, format, path)[1].raise_if_failed()
            self.written[format] = path
        return self.written[format]

    def metadata(self, format: str) -> str:
        """What the honest artifact says of itself; a mutant claims the same."""
        return json.dumps(read_runner(self.honest(format)).metadata)

    def rejection(self, path: Path, fresh: bool = False) -> Rejection | None:
        """What the gate has against the artifact at `path`; None where it passes. A process of its own takes seconds
        to start, so only what nothing else finds out is given one."""
        try:
            report = self.plan.gate.examine(path, fresh=fresh)
        except ParityError as error:
            return Rejection(str(error))
        return None if report.passed else Rejection(report.reason, str(report.culprit or ""))

    def rejection_elsewhere(self, path: Path) -> Rejection | None:
        return self.rejection(path, fresh=True)


def trained(run: Run, folder: Path) -> Subject:
    """`simple-cnn`, trained on the digits: `uint8 [batch, 1, 28, 28]` to logits."""
    there = {format: run.exports / f"model{FORMATS[format].suffix}" for format in FORMATS}
    return Subject(TRAINED, plan_run(run), folder, run, {name: path for name, path in there.items() if path.exists()})


def untrained(name: str, folder: Path, seed: int = 0) -> Subject:
    """One of the small modules with random weights."""
    module, example, dynamic, outputs = EXAMPLES[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Subject(name, plan(capture(module().eval(), example(), dynamic, outputs)), folder)


def _rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


EXAMPLES = {
    "colours": (modules.Colours, lambda: (_rand(2, 3, 8, 8),), {"images": BATCH}, ("logits",)),
    "branch": (modules.Branch, lambda: (_rand(2, 4),), {"x": BATCH}, ("y",)),
    "loop": (modules.Loop, lambda: (_rand(2, 4), torch.tensor(3)), {"x": BATCH}, ("y",)),
    "words": (
        modules.Words,
        lambda: (torch.arange(10).reshape(2, 5),),
        {"tokens": {0: "batch", 1: "length"}},
        ("logits",),
    ),
    "heads": (
        modules.Heads,
        lambda: (_rand(2, 3), 1 - _rand(2, 3), torch.tensor([-4, 4])),
        {"x": BATCH, "y": BATCH, "count": BATCH},
        None,
    ),
    "centred": (modules.Centred, lambda: (_rand(2, 4),), {"x": BATCH}, ("y",)),
}


HONEST = (TRAINED, *EXAMPLES)


class Subjects:
    """Each subject by name, made when it is first asked for."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._made = functools.cache(lambda name: trained(run, folder) if name == TRAINED else untrained(name, folder))

    def __getitem__(self, name: str) -> Subject:
        return self._made(name)
