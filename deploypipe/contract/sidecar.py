"""The document beside each artifact: what it takes, returns, comes from and proved."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploypipe.contract.records import from_document, to_document
from deploypipe.contract.sample import EncodedTensor, Sample
from deploypipe.contract.signature import SIGNATURE_KEYS, Signature, TensorSpec, described
from deploypipe.contract.structure import leaf_names
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION, TENSORS
from deploypipe.errors import DeploypipeError, ParityError, UsageError, first_line
from deploypipe.files import read_json, sha256_file, write_json

SCHEMA = "deploypipe.artifact/1"


@dataclass(frozen=True)
class ControlFlow:
    """One `if`, `while`, `for`, … of the author's source."""

    file: str
    line: int
    function: str
    kind: str
    became: str
    """"cond", "while_loop", "static", …: what it is in the artifact."""
    proven: tuple[str, ...] = ()
    """The branch outcomes that probes took: "true", "false"; for loops "0", "1", "many" iterations."""
    unproven: tuple[str, ...] = ()
    """The branch outcomes that no probe took."""

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Artifact:
    """Where an artifact is, and the facts of its sidecar."""

    path: Path
    format: str
    signature: Signature
    sha256: str
    provenance: Mapping[str, Any]
    """Where the weights come from: their sha256, the dataset, versions, git commit, configuration."""
    parity: Mapping[str, Any]
    """The verdict ("passed"), how many comparisons, the largest difference."""
    samples: Sample | None
    """Inputs and what eager answers to them (of lower precision: the artifact itself), so that whoever loads the
    artifact later can check it on the spot."""
    control_flow: tuple[ControlFlow, ...]
    """Each place where the model's Python decides by data, what it became, and which branch outcomes were proven."""
    task: str
    """What a server makes of it: "image-classification" (pixels to classes) or "tensors" (as the signature says)."""
    precision: str = ""
    """ "int8" where it is rounded to that, and held to the task instead of to eager's values."""
    found_inputs: tuple[tuple[EncodedTensor, ...], ...] = ()
    """Inputs that were searched for at export because they take branch outcomes that no other probe takes; whoever
    verifies the artifact later compares on them too."""

    @property
    def sidecar(self) -> Path:
        return sidecar_of(self.path)

    def to_json(self) -> dict[str, Any]:
        document = to_document(self)
        del document["path"], document["signature"]
        for optional in ("precision", "found_inputs"):
            if not document.get(optional):
                document.pop(optional, None)
        return {"schema": SCHEMA, "file": self.path.name, **self.signature.to_json(), **document}

    def write_sidecar(self) -> None:
        write_json(self.sidecar, self.to_json())


def sidecar_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def is_sidecar(path: Path) -> bool:
    """Whether the file at `path` is a sidecar, of whichever version of deploypipe."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and str(document.get("schema", "")).startswith(SCHEMA.partition("/")[0] + "/")


def read_sidecar(path: Path, error: type[DeploypipeError] = UsageError) -> Artifact:
    """What the sidecar of the artifact at `path` says. `error` where either is missing or the sidecar is damaged;
    ParityError where the artifact's bytes are not those that were proven."""
    if not path.is_file():
        raise error(f"no artifact at {path}", "Write it with `deploypipe export`.")
    remedy = f"Write {path.name} anew with `deploypipe export`."
    document = read_json(sidecar_of(path), SCHEMA, error, remedy)
    try:
        artifact = from_sidecar(path, document)
    except ValueError as cause:
        raise error(f"{sidecar_of(path)} is damaged: {first_line(cause)}", remedy) from cause
    if sha256_file(path) != artifact.sha256:
        raise ParityError(f"{path} is not the file that was proven: its sha256 differs from its sidecar's", remedy)
    return artifact


def from_sidecar(path: Path, document: Mapping[str, Any]) -> Artifact:
    """What a sidecar says of the artifact at `path`. ValueError for facts that are missing, of another type, or that
    contradict each other or the file's name."""
    if "structure" not in document:
        raise ValueError("it has no `structure`")
    signature = {key: document[key] for key in SIGNATURE_KEYS if key in document}
    artifact = from_document({**document, "path": str(path), "signature": signature}, Artifact)
    if artifact.task not in (IMAGE_CLASSIFICATION, TENSORS):
        raise ValueError(f"no task {artifact.task!r}")
    try:
        names = leaf_names(artifact.signature.structure)
    except (AttributeError, TypeError, ValueError) as cause:
        raise ValueError("its structure is none") from cause
    if len(names) != len(artifact.signature.outputs):
        raise ValueError("its structure does not nest its outputs")
    if artifact.samples:
        _check_tensors(artifact.signature.inputs, artifact.samples.encoded_inputs)
        _check_tensors(artifact.signature.outputs, artifact.samples.encoded_outputs)
    for inputs in artifact.found_inputs:
        _check_tensors(artifact.signature.inputs, inputs)
    return artifact


def _check_tensors(specs: Sequence[TensorSpec], tensors: Sequence[EncodedTensor]) -> None:
    """ValueError for arrays that are not what the signature says."""
    if len(specs) != len(tensors):
        raise ValueError(f"{len(tensors)} sample tensors for {len(specs)} of its signature")
    for spec, tensor in zip(specs, tensors, strict=True):
        if not spec.accepts(tensor.array):
            raise ValueError(f"its sample of {spec} is {described(tensor)}")
