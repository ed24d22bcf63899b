"""The archive: one `.mar` with a proven artifact, its sidecar, and the code that serves it.

Written by ourselves rather than by torch-model-archiver, whose zip carries times and goes through a temporary folder
that concurrent calls share. Entries are stored, sorted and dated 1980, so that identical inputs give identical bytes on
every machine.
"""

import hashlib
import json
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

from deploypipe.archives.fresh_start import check_fresh_start
from deploypipe.archives.proof import proven, tolerances
from deploypipe.archives.travel import reader_of, travelling_files
from deploypipe.contract.archive import (
    CONFIG_FILE,
    ENTRY_FILE,
    MANIFEST,
    SCHEMA,
    Archive,
    check_names,
    read_archive,
)
from deploypipe.contract.run import Run
from deploypipe.contract.seal import PASSED
from deploypipe.contract.sidecar import Artifact
from deploypipe.errors import PackageError
from deploypipe.files import atomic_path

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say

_CONFIG = b"""\
# How many workers, which batch size and delay: the server's settings decide, which know the machine.
startupTimeout: 120
responseTimeout: 60
# For how long a worker that keeps dying is started again; after that requests would wait without an answer.
maxRetryTimeoutInSec: 86400
"""


def build_archive(
    artifact: Path,
    name: str,
    version: str = "1.0",
    store: Path = Path("model_store"),
    *,
    trained: Run | None = None,
) -> Archive:
    """Write `store/<name>-<version>.mar` from the artifact and its sidecar, whole or not at all.

    PackageError when the artifact or its sidecar is missing, when the proof from its weights to its sidecar is broken
    (see `contract/seal.py`), when it has no sample to prove itself with, when the weights in it are not those of the
    run `trained` (if given), for a name or version that TorchServe does not take, when what is packed does not
    answer its samples in a fresh process, and when the store cannot be written.
    """
    check_names(name, version)
    facts = proven(artifact, trained)
    files = travelling_files(facts.format)
    files |= {
        artifact.name: artifact.read_bytes(),
        facts.sidecar.name: facts.sidecar.read_bytes(),
        CONFIG_FILE: _CONFIG,
    }
    if hashlib.sha256(files[artifact.name]).hexdigest() != facts.sha256:
        raise PackageError(f"{artifact} changed while it was packaged", "Run `deploypipe package` again.")
    files[MANIFEST] = _manifest(facts, name, version, files)
    path = store / f"{name}-{version}.mar"
    try:
        with atomic_path(path) as temporary:
            _write_zip(temporary, files)
            _prove(temporary, facts, files)
    except OSError as cause:
        raise PackageError(f"{path} cannot be written: {cause.strerror or cause}") from cause
    return read_archive(path)


_proven: set[str] = set()
"""Of what this process has seen answer its samples in a fresh one: the digests of the files, whatever it was called."""


def _prove(archive: Path, facts: Artifact, files: Mapping[str, bytes]) -> None:
    packed = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != MANIFEST}
    digest = hashlib.sha256(json.dumps(packed, sort_keys=True).encode()).hexdigest()
    if digest not in _proven:
        check_fresh_start(archive, reader_of(facts.format))
        _proven.add(digest)


def _manifest(facts: Artifact, name: str, version: str, files: Mapping[str, bytes]) -> bytes:
    """What TorchServe reads, as torch-model-archiver writes it, and what deploypipe adds."""
    manifest = {
        "createdOn": "01/01/1980 00:00:00",  # TorchServe warns without one
        "runtime": "python",
        "model": {
            "modelName": name,
            "serializedFile": facts.path.name,
            "handler": ENTRY_FILE,
            "modelVersion": version,
            "configFile": CONFIG_FILE,
        },
        "archiverVersion": "0.12.0",  # whose layout this is
        "deploypipe": {
            "schema": SCHEMA,
            "artifact": facts.path.name,
            "sidecar": facts.sidecar.name,
            "fresh_process": PASSED,
            "sha256": {path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())},
            "tolerances": [{"atol": atol, "rtol": rtol} for atol, rtol in tolerances(facts)],
        },
    }
    return (json.dumps(manifest, indent=2) + "\n").encode()


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            file.writestr(entry, content)
