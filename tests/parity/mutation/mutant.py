"""A mutant: one way in which an artifact is wrong, and what the gate must say of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .routes import Make
from .subjects import Subject

ALL = ("onnx", "pt2", "torchscript")
ONNX, PT2, SCRIPT = ("onnx",), ("pt2",), ("torchscript",)
TORCH = ("pt2", "torchscript")


@dataclass(frozen=True)
class Mutant:
    name: str
    subject: str
    make: Make
    reason: str
    """A regular expression that the gate's reason must match."""
    formats: tuple[str, ...] = ALL
    judge: Callable[[Subject, Path], str] = Subject.rejection
