"""Mutants of the files: damaged, of another origin, or not alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from deploypipe.contract.sidecar import sidecar_of
from deploypipe.errors import DeploypipeError
from deploypipe.package import package

from .mutant import ONNX, Mutant, alike
from .routes import Make, rewritten
from .subjects import Rejection, Subject


def packaged(subject: Subject, path: Path) -> Rejection | None:
    """What `package` says against it."""
    try:
        package(path, subject.run.folder if subject.run else None, "mutant", "1.0", path.parent)
    except DeploypipeError as error:
        return Rejection(str(error))
    return None


def with_sidecar(change: Callable[[dict[str, Any]], None]) -> Make:
    """The honest artifact with another sidecar."""

    def make(subject: Subject, format: str, path: Path) -> None:
        shutil.copy(subject.honest(format), path)
        document = json.loads(sidecar_of(subject.honest(format)).read_text())
        change(document)
        sidecar_of(path).write_text(json.dumps(document | {"file": path.name}))

    return make


def of_another_run(document: dict[str, Any]) -> None:
    document["sha256"] = "0" * 64
    document["provenance"]["weights_sha256"] = "1" * 64


def of_other_weights(document: dict[str, Any]) -> None:
    document["provenance"]["weights_sha256"] = "1" * 64


def unproven(document: dict[str, Any]) -> None:
    document["parity"] = {}


def refuted(document: dict[str, Any]) -> None:
    document["parity"]["verdict"] = "failed"


def changed_since(subject: Subject, format: str, path: Path) -> None:
    """The honest sidecar beside a file with three bytes more, that every loader skips: to ONNX they are a field of
    another version."""
    path.write_bytes(subject.honest(format).read_bytes() + b"\xa0\x06\x01")
    shutil.copy(sidecar_of(subject.honest(format)), sidecar_of(path))


def with_external_data(subject: Subject, format: str, path: Path) -> None:
    proto = onnx.load(subject.honest(format))
    onnx.save_model(
        proto, path, save_as_external_data=True, location=path.name + ".data", size_threshold=0, convert_attribute=False
    )


def without_its_external_data(subject: Subject, format: str, path: Path) -> None:
    with_external_data(subject, format, path)
    path.with_name(path.name + ".data").unlink()


def of_another_format(subject: Subject, format: str, path: Path) -> None:
    other = {"onnx": "pt2", "pt2": "torchscript", "torchscript": "onnx"}[format]
    shutil.copy(subject.honest(other), path)


LOADED = r"cannot be loaded"
FILES = {
    "files": [
        *alike("digits", LOADED, [
            ("half of the file", rewritten(lambda data: data[: len(data) // 2])),
            ("all but the last 100 bytes", rewritten(lambda data: data[:-100])),
            ("an empty file", rewritten(lambda data: b"")),
            ("a page of HTML", rewritten(lambda data: b"<html>404 Not Found</html>")),
            ("the file of another format", of_another_format),
    ]),
        Mutant("external data left beside", "digits", with_external_data, "external", ONNX),
        Mutant("external data missing", "digits", without_its_external_data, f"{LOADED}|external", ONNX),
    ],
    "provenance": [
        Mutant("a sidecar from another run", "digits", with_sidecar(of_another_run), "sidecar"),
        Mutant("a file changed since its proof", "digits", changed_since, "sidecar"),
        *(
            Mutant(f"packaged {name}", "digits", with_sidecar(change), reason, judge=packaged)
            for name, change, reason in (
                ("with a sidecar from another run", of_another_run, "sidecar"),
                ("with another run's weights", of_other_weights, "weights"),
                ("without a verdict", unproven, "proven|verdict"),
                ("with a failed verdict", refuted, "proven|verdict|failed"),
            )
        ),
    ],
}  # fmt: skip
