"""The model store: a folder of archives."""

from collections.abc import Sequence
from pathlib import Path

from deploypipe.errors import PackageError, ServingError
from deploypipe.serve.archive import Archive, read_archive


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
        if any(character in archive.path.name for character in ",=") or ".." in archive.path.name:
            raise ServingError(f"{archive.path.name!r} has characters that TorchServe splits at", "Rename it.")
        twin = by_version.setdefault((archive.name, archive.version), archive)
        if twin is not archive:
            raise ServingError(f"{twin.path.name} and {archive.path.name} both hold {archive}", "Remove one of them.")
    return sorted(archives, key=lambda archive: (archive.name, _version_key(archive.version)), reverse=True)


def _of_name(model: str, paths: Sequence[Path], store: Path) -> list[Path]:
    found = [path for path in paths if model in (path.name, path.stem, path.stem.rpartition("-")[0])]
    if not found:
        raise ServingError(f"no archive of {model!r} in {store}", f"There are: {', '.join(p.name for p in paths)}.")
    return found


def _version_key(version: str) -> list[tuple[bool, int, str]]:
    """10.0 is newer than 9.0; a word comes before a number."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in version.split(".")]
