"""The record of an archive: what a `.mar` file serves, what it must answer, and whether it is as it was packaged."""

import hashlib
import json
import re
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deploypipe.contract.records import from_document
from deploypipe.contract.sample import Sample
from deploypipe.contract.seal import PASSED
from deploypipe.contract.sidecar import SCHEMA as ARTIFACT_SCHEMA
from deploypipe.contract.signature import Signature
from deploypipe.errors import PackageError, first_line
from deploypipe.files import sha256_file

SCHEMA = "deploypipe.archive/2"
MANIFEST = "MAR-INF/MANIFEST.json"
CONFIG_FILE = "model-config.yaml"
ENTRY_FILE = "handler.py"
"""What TorchServe loads."""
CODE = "archived"
"""What the package of deploypipe's own modules is called inside, so that no installed deploypipe ever mixes in."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # torch-model-archiver's rule
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")


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


def check_names(name: str, version: str) -> None:
    """PackageError for what TorchServe does not take as a model's name or version."""
    for what, value, allowed in (("name", name, _NAME), ("version", version, _VERSION)):
        if not allowed.fullmatch(value) or ".." in value:
            extra = ", '-'" if what == "name" else ""
            raise PackageError(
                f"{value!r} is no {what} that TorchServe takes",
                f"Letters, digits, '_', '.'{extra}; a letter or digit first, no '..'.",
            )


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
            check_names(model["modelName"], model["modelVersion"])
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
    if facts["fresh_process"] != PASSED:
        raise ValueError("what is packed has not answered its samples in a fresh process")
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
