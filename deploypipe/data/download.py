"""Downloads of which no process ever sees a part.

One process at a time downloads a dataset, under a lock; the others wait and find it there. It is unpacked into a folder
of its own and checked, and that folder takes its final name in one rename, so half a download is never taken for a
whole one.
"""

import contextlib
import io
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from deploypipe.errors import DataError
from deploypipe.files import sha256_file

NETWORK_TIMEOUT = 10.0
"""Seconds that one network operation may take before a download counts as failed."""
LONGEST_WAIT = 600.0
"""Seconds to wait for another process that downloads the same dataset."""
CHECKSUMS = "SHA256SUMS"
"""Written beside the files: nobody publishes digests of the unpacked files of some datasets, so they are taken when a
download whose packed files have published digests was unpacked."""


class Unavailable(DataError):
    """A dataset is not in the data folder and could not be downloaded."""

    def __init__(self, what: str, folder: Path, reason: str) -> None:
        super().__init__(
            f"{what} is not in {folder} and could not be downloaded: {reason}",
            "Give the folder that has it with --data-dir, or use --data digits, which needs no network.",
        )
        self.reason = reason


def files_of(name: str, folder: Path) -> Path:
    """Where torchvision keeps the files of its dataset `name` in a data folder."""
    return folder / name / "raw"


def download(name: str, folder: Path, files: Sequence[str], known: Mapping[str, str]) -> None:
    """The `files` of torchvision's dataset `name` into `folder`, unless another process did it meanwhile.

    `known` has published digests of the files. Unavailable for whatever fails; then nothing is left behind.
    """
    final = files_of(name, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock", timeout=LONGEST_WAIT):
            if any((final / file).exists() for file in files):
                return
            prefix = f".{name}.download-"
            for abandoned in folder.glob(f"{prefix}*"):  # by a process that was killed: only the lock's holder is alive
                shutil.rmtree(abandoned, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as scratch:
                unpacked = _unpacked(name, Path(scratch))
                _check_and_record(unpacked, files, known)
                final.parent.mkdir(exist_ok=True)
                unpacked.rename(final)
    except Exception as cause:
        # Whatever a network, a proxy's answer or half a file makes of it; torchvision says the reason last.
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[-1]
        raise Unavailable(name, folder, reason) from cause


def recorded_checksums(raw: Path) -> dict[str, str]:
    """The digests that a download left beside its files; none where there was no such download."""
    try:
        lines = (raw / CHECKSUMS).read_text().splitlines()
    except OSError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _unpacked(name: str, scratch: Path) -> Path:
    """Through torchvision, which checks the packed files."""
    from torchvision import datasets

    # torchvision prints its progress, but standard output belongs to the result.
    with _network_timeout(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        getattr(datasets, name)(scratch, download=True)
    return files_of(name, scratch)


def _check_and_record(unpacked: Path, files: Sequence[str], known: Mapping[str, str]) -> None:
    digests = {file: sha256_file(unpacked / file) for file in files}
    for file, digest in digests.items():
        if digest != known.get(file, digest):
            raise ValueError(f"the {file} that was downloaded has another sha256 than the published one")
    (unpacked / CHECKSUMS).write_text("".join(f"{digest}  {file}\n" for file, digest in digests.items()))


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
