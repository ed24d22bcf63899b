"""The record of an archive: what a `.mar` file serves, and what it must answer."""

from dataclasses import dataclass
from pathlib import Path

from deploypipe.contract.signature import Signature
from deploypipe.contract.tensors import Sample


@dataclass(frozen=True)
class Archive:
    """A `.mar`, and what its manifest and sidecar say."""

    path: Path
    name: str
    version: str
    sha256: str
    """Of the `.mar` file."""
    format: str
    task: str
    signature: Signature
    sample: Sample
    """What the handler, and the server over HTTP, must answer before it counts as ready."""
    tolerances: tuple[tuple[float, float], ...]
    """(atol, rtol) of each output."""
    precision: str = ""
    """ "int8" where the artifact is rounded to that."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def kind(self) -> str:
        """ "onnx", "onnx, int8": what answers, for people."""
        return ", ".join(filter(None, (self.format, self.precision)))

    def facts(self) -> dict[str, str]:
        """What names it, for people and scripts."""
        return {"path": str(self.path), "name": self.name, "version": self.version, "format": self.format,
                "precision": self.precision, "sha256": self.sha256}  # fmt: skip
