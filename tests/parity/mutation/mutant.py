"""A mutant: one mistake in an artifact, and what the gate must say of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .routes import Make
from .subjects import Rejection, Subject

ALL = ("onnx", "pt2", "torchscript")
ONNX, PT2, SCRIPT = ("onnx",), ("pt2",), ("torchscript",)
TORCH, TRACED = ("pt2", "torchscript"), ("onnx", "torchscript")


@dataclass(frozen=True)
class Mutant:
    name: str
    subject: str
    make: Make
    reason: str
    """A regular expression that the gate's reason must match."""
    formats: tuple[str, ...] = ALL
    culprit: str = ""
    """Of a mutant whose fault is in one place: what must match where the gate says that the artifact first departs."""
    judge: Callable[[Subject, Path], Rejection | None] = Subject.rejection


def alike(
    subject: str, reason: str, makes: Sequence[tuple[str, Make]], formats: tuple[str, ...] = ALL, culprit: str = ""
) -> list[Mutant]:
    """Mutants of one subject with one reason: pairs of a name and how it is made. They are no dict because capture
    reads a lambda's source, and a line `"name": lambda` is no expression."""
    return [Mutant(name, subject, make, reason, formats, culprit) for name, make in makes]
