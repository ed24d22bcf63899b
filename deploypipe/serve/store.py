"""The model store: a folder of archives."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploypipe.contract.archive import Archive, read_archive
from deploypipe.errors import PackageError, ServingError
from deploypipe.files import atomic_path, sha256_file


def archives_in(store: Path, models: Sequence[str] | None) -> list[Archive]:
    """The archives to serve, all or those of `models` (names or file names), the newest version of a name first.

    ServingError for a store that is missing or empty, a name that is not there, and an archive that is not whole.
    """
    if not store.is_dir():
        raise ServingError(f"no model store at {store}", "Build an archive with `deploypipe package`.")
    paths = sorted(store.glob("*.mar"))
    if not paths:
        raise ServingError(f"no archive (.mar) in {store}", "Build one with `deploypipe package`.")
    if models is not None:
        paths = sorted({path for model in models for path in _of_name(model, paths, store)})
    try:
        archives = [read_archive(path) for path in paths]
    except PackageError as cause:
        raise ServingError(cause.message, cause.remedy) from cause
    by_version: dict[tuple[str, str], Archive] = {}
    for archive in archives:
        _check_name(archive.path)
        twin = by_version.setdefault((archive.name, archive.version), archive)
        if twin is not archive:
            raise ServingError(f"{twin.path.name} and {archive.path.name} both hold {archive}", "Remove one of them.")
    return sorted(archives, key=lambda archive: (archive.name, _version_key(archive.version)), reverse=True)


@contextlib.contextmanager
def placed(archive: Archive, store: Path) -> Iterator[Archive]:
    """The archive as it lies in the store: as it is, if it is there, else copied to it, whole or not at all; a copy is
    removed again when the block raises.

    ServingError when a file of that name and other content is there, and when the store cannot be written.
    """
    path = archive.path.resolve()
    _check_name(path)
    if path.parent == store:
        yield dataclasses.replace(archive, path=path)
        return
    path = store / f"{archive.name}-{archive.version}.mar"
    there = path.exists()
    if there and sha256_file(path) != archive.sha256:
        raise ServingError(
            f"{path} is there already, with other content", "Package under another --model-version, or remove it."
        )
    if not there:
        try:
            with atomic_path(path) as temporary:
                shutil.copyfile(archive.path, temporary)
        except OSError as cause:
            raise ServingError(
                f"{path} cannot be written: {cause.strerror or cause}",
                "A server loads from its model store alone: make it writable, or put the archive there.",
            ) from cause
    try:
        yield dataclasses.replace(archive, path=path)
    except BaseException:
        if not there:
            path.unlink(missing_ok=True)
        raise


def _check_name(path: Path) -> None:
    if any(character in path.name for character in ",=") or ".." in path.name:
        raise ServingError(f"{path.name!r} has characters that TorchServe splits at", "Rename it.")


def _of_name(model: str, paths: Sequence[Path], store: Path) -> list[Path]:
    found = [path for path in paths if model in (path.name, path.stem, path.stem.rpartition("-")[0])]
    if not found:
        raise ServingError(f"no archive of {model!r} in {store}", f"There are: {', '.join(p.name for p in paths)}.")
    return found


def _version_key(version: str) -> list[tuple[bool, int, str]]:
    """10.0 is newer than 9.0; a word comes before a number."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in version.split(".")]
