"""What a format is. Its reader, writer and inspection are modules of its folder, imported when they are first used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploypipe.formats.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from deploypipe.capture import Capture
    from deploypipe.formats.inspection import Inspection

Write = Callable[["Capture", Path, str, Sequence[tuple["Tensor", ...]]], str]
"""`write(capture, path, metadata, probes)` writes one file and returns what is worth saying about how (may be empty);
of several ways to write it, it takes one that agrees with eager on the probes."""


@dataclass(frozen=True)
class Format:
    """How one kind of artifact is called, and where its parts are."""

    name: str
    suffix: str
    carries: str
    """What it can hold, in one line."""
    package: str
    """The format's folder as a package: "deploypipe.formats.onnx"."""

    @property
    def reader(self) -> str:
        """The name of the module that travels inside archives."""
        return f"{self.package}.read"

    @property
    def write(self) -> Write:
        return self._part("write").write  # type: ignore[no-any-return]

    def read(self, path: Path, device: str = "cpu", threads: int | None = None) -> Session:
        """Load the artifact at `path`; `threads` bounds the CPU threads of one call, where the runtime can."""
        return self._part("read").read(path, device, threads)  # type: ignore[no-any-return]

    def variants(self, path: Path, device: str) -> Mapping[str, Callable[[], Session]]:
        """Settings of this format's runtime alone, under which its artifacts must return the same: what is different →
        how to load the artifact so."""
        return self._part("read").variants(path, device)  # type: ignore[no-any-return]

    def seal(self, path: Path, text: str) -> None:
        """Add the entry `SEAL` to a written file and change nothing else."""
        self._part("write").seal(path, text)

    def inspect(self, path: Path) -> "Inspection":
        """Open the file for the parity gate."""
        return self._part("inspect").inspect(path)  # type: ignore[no-any-return]

    def _part(self, module: str) -> Any:
        return import_module(f"{self.package}.{module}")
