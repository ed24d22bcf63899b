"""From a path to a runner, an inspection, or the facts of a sidecar."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from deploypipe.contract.sidecar import Artifact, read_sidecar, sidecar_of
from deploypipe.errors import DeploypipeError, ParityError, UsageError, first_line
from deploypipe.formats import format_of
from deploypipe.formats.inspection import Inspection
from deploypipe.formats.runner import Runner
from deploypipe.formats.session import DeviceUnavailable, Session

Loaded = TypeVar("Loaded")


def read_artifact(path: Path, error: type[DeploypipeError] = UsageError) -> Artifact:
    """The artifact at `path` by its sidecar, which must be about a file of that format; see `read_sidecar`."""
    artifact = read_sidecar(path, error)
    if artifact.format != format_of(path).name:
        raise error(
            f"{artifact.sidecar} is damaged: its format, {artifact.format!r}, is not that of {path.name}",
            f"Write {path.name} anew with `deploypipe export`.",
        )
    return artifact


def read_session(path: Path, device: str = "cpu", threads: int | None = None) -> Session:
    """Load an artifact whatever its sidecar says; ParityError when the file itself cannot be read."""
    return _guarded(path, lambda: format_of(path).read(path, device, threads), f"loaded on {device}")


def read_runner(path: Path, device: str = "cpu", threads: int | None = None) -> Runner:
    """The session of `read_session` as a Runner."""
    return Runner(read_session(path, device, threads))


def inspect_artifact(path: Path) -> Inspection:
    """Open an artifact's file, its format known by the suffix. UsageError where none is there, ParityError where it
    cannot be read."""
    return _guarded(path, lambda: format_of(path).inspect(path), "inspected")


def load(path: str | Path, device: str = "cpu", threads: int | None = None) -> Runner:
    """A Runner for the artifact at `path`: `runner(*args, **kwargs)` takes and returns what the eager module does.

    `device`: "cpu", "cuda", "cuda:1". `threads`: CPU threads of one call; None leaves it to the runtime.
    ParityError when the file is not the one that its sidecar describes; a file without a sidecar is loaded as it is.
    """
    path = Path(path)
    if sidecar_of(path).exists():
        read_artifact(path)
    return read_runner(path, device, threads)


def _guarded(path: Path, opened: Callable[[], Loaded], how: str) -> Loaded:
    if not path.is_file():
        raise UsageError(f"no artifact at {path}", "Write it with `deploypipe export`.")
    try:
        return opened()
    except DeploypipeError:
        raise
    except DeviceUnavailable as cause:
        raise UsageError(str(cause), "`deploypipe doctor` shows what this machine has.") from cause
    except Exception as cause:
        remedy = "Write it anew with `deploypipe export`."
        raise ParityError(f"{path} cannot be {how}: {first_line(cause)}", remedy) from cause
