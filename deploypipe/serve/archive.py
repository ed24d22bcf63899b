"""The archive: one `.mar` with a proven artifact, its sidecar, and the code that serves it.

Written by ourselves rather than by torch-model-archiver, whose zip carries times and goes through a temporary folder
that concurrent calls share; only its manifest is used. Entries are stored, sorted and dated 1980, so that identical
inputs give identical bytes on every machine.
"""

import hashlib
import json
import re
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from model_archiver.manifest_components.manifest import Manifest
from model_archiver.manifest_components.model import Model

from deploypipe.contract.archive import Archive
from deploypipe.contract.protocol import uncarried
from deploypipe.contract.records import from_document
from deploypipe.contract.run import Run
from deploypipe.contract.seal import PASSED, broken_link
from deploypipe.contract.sidecar import SCHEMA as ARTIFACT_SCHEMA
from deploypipe.contract.sidecar import Artifact
from deploypipe.contract.signature import Signature
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.contract.tensors import Sample
from deploypipe.errors import PackageError, ParityError, TrainingError, first_line
from deploypipe.files import atomic_path, sha256_file
from deploypipe.formats.reading import inspect_artifact, read_artifact, read_runner
from deploypipe.formats.torch_session import to_tensor
from deploypipe.models.trained import load_trained
from deploypipe.parity.file_structure import check_structure
from deploypipe.parity.standards import standard_of
from deploypipe.serve.service.requests import image_shape
from deploypipe.serve.travel import ENTRY_FILE, travelling_files

SCHEMA = "deploypipe.archive/1"
MANIFEST = "MAR-INF/MANIFEST.json"
CONFIG_FILE = "model-config.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # torch-model-archiver's rule
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say

_CONFIG = b"""\
# How many workers, which batch size and delay: the server's settings decide, which know the machine.
startupTimeout: 120
responseTimeout: 60
# For how long a worker that keeps dying is started again; after that requests would wait without an answer.
maxRetryTimeoutInSec: 86400
"""


def package(
    artifact: Path,
    name: str,
    version: str = "1.0",
    store: Path = Path("model_store"),
    *,
    trained: Run | None = None,
) -> Archive:
    """Write `store/<name>-<version>.mar` from the artifact and its sidecar, whole or not at all.

    PackageError when the artifact or its sidecar is missing, when the chain from its weights to its sidecar is broken
    (see `chain.py`), when it has no sample to prove itself with, when the weights in it are not those of the run
    `trained` (if given), for a name or version that TorchServe does not take, and when the store cannot be written.
    """
    _check_names(name, version)
    facts = _proven(artifact, trained)
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
    except OSError as cause:
        raise PackageError(f"{path} cannot be written: {cause.strerror or cause}") from cause
    return read_archive(path)


def _check_names(name: str, version: str) -> None:
    for what, value, allowed in (("name", name, _NAME), ("version", version, _VERSION)):
        if not allowed.fullmatch(value) or ".." in value:
            extra = ", '-'" if what == "name" else ""
            raise PackageError(
                f"{value!r} is no {what} that TorchServe takes",
                f"Letters, digits, '_', '.'{extra}; a letter or digit first, no '..'.",
            )


def _proven(path: Path, trained: Run | None) -> Artifact:
    again = "Write it anew with `deploypipe export`."
    try:
        facts = read_artifact(path, PackageError)
        problem = broken_link(facts.to_json(), read_runner(path))
    except ParityError as cause:
        raise PackageError(cause.message, cause.remedy) from cause
    if problem:
        raise PackageError(f"{path} is not proven equal to the trained model: {problem}", again)
    if facts.samples is None:
        raise PackageError(
            f"{path} carries no sample that a server could prove itself with",
            "Export it with a first probe of fewer bytes.",
        )
    if trained is not None:
        _check_weights(facts, trained, again)
    if problem := uncarried(facts.signature):
        raise PackageError(f"{path} cannot be served: {problem}")
    if facts.task == IMAGE_CLASSIFICATION:
        try:
            image_shape(facts.signature)
        except ValueError as cause:
            raise PackageError(f"{path} cannot be served: {cause}") from cause
    return facts


def _check_weights(facts: Artifact, trained: Run, again: str) -> None:
    """By what the artifact says of them, and by the tensors in its file: neither alone would notice every exchange."""
    weights = facts.provenance.get("weights_sha256")
    if weights != trained.document["weights_sha256"]:
        raise PackageError(f"{facts.path} was not written from this run's weights (sha256 {weights})", again)
    try:
        found = check_structure(
            load_trained(trained), inspect_artifact(facts.path), facts.signature, standard_of(facts.precision)
        )
    except TrainingError as cause:
        raise PackageError(cause.message, cause.remedy) from cause
    for finding in found:
        if not finding.passed:
            raise PackageError(f"{facts.path} is not this run's model: {finding.check}: {finding.detail}", again)


def _manifest(facts: Artifact, name: str, version: str, files: Mapping[str, bytes]) -> bytes:
    model = Model(
        model_name=name,
        serialized_file=facts.path.name,
        handler=ENTRY_FILE,
        model_version=version,
        config_file=CONFIG_FILE,
    )
    manifest = dict(Manifest(runtime="python", model=model).manifest_dict)
    manifest["createdOn"] = "01/01/1980 00:00:00"  # TorchServe warns without one
    manifest["deploypipe"] = {
        "schema": SCHEMA,
        "artifact": facts.path.name,
        "sidecar": facts.sidecar.name,
        "sha256": {path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())},
        "tolerances": [{"atol": atol, "rtol": rtol} for atol, rtol in _tolerances(facts)],
    }
    return (json.dumps(manifest, indent=2) + "\n").encode()


def _tolerances(facts: Artifact) -> list[tuple[float, float]]:
    """Other machines have other kernels, which sum in another order, whatever the runtime."""
    outputs = facts.samples.outputs if facts.samples else ()
    allowed = standard_of(facts.precision).on_another_machine([to_tensor(output) for output in outputs])
    return [(row.atol, row.rtol) for row in allowed]


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            file.writestr(entry, content)


def read_archive(path: Path) -> Archive:
    """The archive at `path`, every file in it checked. PackageError, in one line, when anything is not as packaged."""
    again = "Build it anew with `deploypipe package`."
    if not path.is_file():
        raise PackageError(f"no archive at {path}", "Build it with `deploypipe package`.")
    try:
        with zipfile.ZipFile(path) as file:
            _check_entries(file.infolist())
            manifest = json.loads(file.read(MANIFEST))
            facts = manifest.get("deploypipe")
            if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
                raise ValueError("it was not packaged by this version of deploypipe")
            wanted = facts["sha256"]
            if set(wanted) | {MANIFEST} != set(file.namelist()):
                raise ValueError("its files are not those that its manifest lists")
            for name in sorted(wanted):
                if hashlib.sha256(file.read(name)).hexdigest() != wanted[name]:
                    raise ValueError(f"{name} in it is not what was packaged")
            for name in (facts["artifact"], facts["sidecar"], ENTRY_FILE, CONFIG_FILE):
                if name not in wanted:
                    raise ValueError(f"{name} is missing in it")
            model = manifest["model"]
            if (model["handler"], model["configFile"]) != (ENTRY_FILE, CONFIG_FILE):
                raise ValueError("its manifest points elsewhere for handler or configuration")
            _check_names(model["modelName"], model["modelVersion"])
            sidecar = json.loads(file.read(facts["sidecar"]))
        return _archive(path, model, facts, sidecar)
    except PackageError:
        raise
    except OSError as cause:
        raise PackageError(f"{path} cannot be read: {cause.strerror or cause}") from cause
    except KeyError as cause:
        raise PackageError(f"{path} is no whole archive: {cause.args[0]} is missing in it", again) from cause
    except (zipfile.BadZipFile, ValueError, TypeError, AttributeError, NotImplementedError, RuntimeError) as cause:
        raise PackageError(f"{path} cannot be served: {first_line(cause)}", again) from cause


def _archive(path: Path, model: Mapping[str, Any], facts: Mapping[str, Any], sidecar: Mapping[str, Any]) -> Archive:
    if sidecar["schema"] != ARTIFACT_SCHEMA or sidecar["sha256"] != facts["sha256"][facts["artifact"]]:
        raise ValueError("its sidecar does not describe its artifact")
    if sidecar["parity"].get("verdict") != PASSED or sidecar["samples"] is None:
        raise ValueError("its artifact is not proven")
    return Archive(
        path=path,
        name=model["modelName"],
        version=model["modelVersion"],
        sha256=sha256_file(path),
        format=sidecar["format"],
        task=sidecar["task"],
        signature=from_document(sidecar, Signature),
        sample=from_document(sidecar["samples"], Sample),
        tolerances=tuple((item["atol"], item["rtol"]) for item in facts["tolerances"]),
        precision=sidecar.get("precision", ""),
    )


def _check_entries(entries: Sequence[zipfile.ZipInfo]) -> None:
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise ValueError("a file is in it twice")
    for entry in entries:
        # orig_filename is the name as written: zipfile cuts it at a NUL and may change its separators.
        parts = PurePosixPath(entry.orig_filename).parts
        if not parts or ".." in parts or parts[0] == "/" or any(c in entry.orig_filename for c in "\\:\0"):
            raise ValueError(f"{entry.orig_filename!r} in it leads outside")
        mode = entry.external_attr >> 16
        if mode and not (stat.S_ISREG(mode) or stat.S_IFMT(mode) == 0):
            raise ValueError(f"{entry.filename!r} in it is no plain file")
