"""Files that are written whole or not at all, and their digests."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploypipe.errors import DeploypipeError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What goes wrong with a disk rather than with a name: the system tells it of no file."""


class Unwritable(UsageError, OSError):
    """A file or folder cannot be written. An OSError still, for those who handle these and know better what to say."""

    def __init__(self, path: Path, cause: OSError) -> None:
        # What mkdir says of a file in the place of a folder would read as if that were fine.
        reason = os.strerror(errno.ENOTDIR) if isinstance(cause, FileExistsError) else cause.strerror or str(cause)
        super().__init__(f"cannot write {path}: {reason}", "Choose another place, or make this one writable.")
        self.errno, self.strerror = cause.errno, reason


@contextmanager
def writing(path: Path, *only: Path) -> Iterator[None]:
    """An OSError of the block becomes `Unwritable`, which names `path`.

    With `only`, just where it is about one of these, something below them, or the disk: a block that runs other code
    has errors of its own.
    """
    try:
        yield
    except Unwritable:
        raise
    except OSError as cause:
        if only and not _concerns(cause, only):
            raise
        raise Unwritable(path, cause) from cause


def _concerns(cause: OSError, paths: tuple[Path, ...]) -> bool:
    if not isinstance(cause.filename, str | bytes | os.PathLike):
        return cause.errno in _FULL
    named = Path(os.fsdecode(cause.filename))
    return any(path == named or path in named.parents for path in paths)


def make_folder(path: Path) -> None:
    """`path` as a folder that files can be written to, tried; else `Unwritable`."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, same suffix, that becomes `path` when the block ends without an exception.

    Whatever interrupts the block (Ctrl-C too), `path` keeps what it held and the temporary file is removed.
    `Unwritable` where there is no writing.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with writing(path, temporary):
            yield temporary
        with writing(path):
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A folder on the same disk as `beside`, so that a rename out of it is atomic; gone when the block ends.
    `Unwritable` where there is no writing."""
    folder = beside.with_name(f".{beside.name}.{secrets.token_hex(4)}")
    with writing(beside):
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    try:
        with writing(beside, folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, schema: str, error: type[DeploypipeError], remedy: str) -> dict[str, Any]:
    """The JSON object in `path`, whose `schema` field must be `schema`; else `error`, which names the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} does not exist", remedy) from None
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be read: {cause}", remedy) from cause
    if not isinstance(document, dict) or document.get("schema") != schema:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise error(f"{path} is not a {schema!r} file (its schema is {found!r})", remedy)
    return document


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
