"""What an artifact is: one file in one format, and a sidecar that says what it takes, gives, comes from and proved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploypipe.contract.tasks import IMAGE_CLASSIFICATION as IMAGE_CLASSIFICATION
from deploypipe.contract.tasks import TENSORS as TENSORS
from deploypipe.errors import DeploypipeError, ParityError, UsageError, first_line
from deploypipe.files import check_shape, read_json, sha256_file, write_json
from deploypipe.formats import FORMATS
from deploypipe.formats.base import DeviceUnavailable, Format, Runner
from deploypipe.signature import Sample, Signature, dtype_name, leaf_names

SCHEMA = "deploypipe.artifact/1"
_SPEC = {"name": str, "dtype": str, "shape": [int | str]}
_TENSOR = {"dtype": str, "shape": [int], "base64": str}
_SITE = {"file": str, "line": int, "function": str, "kind": str, "became": str, "proven": [str], "unproven": [str]}
SIDECAR = {
    "format": str,
    "sha256": str,
    "inputs": [_SPEC],
    "outputs": [_SPEC],
    "structure": dict | None,
    "provenance": dict,
    "parity": dict,
    "control_flow": [_SITE],
    "task": str,
    "samples": dict | None,
}
SAMPLES = {"inputs": [_TENSOR], "outputs": [_TENSOR]}


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
    """The ways that probes went: "true", "false"; for loops "0", "1", "many" iterations."""
    unproven: tuple[str, ...] = ()
    """The ways that no probe went."""

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line,
            "function": self.function,
            "kind": self.kind,
            "became": self.became,
            "proven": list(self.proven),
            "unproven": list(self.unproven),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ControlFlow":
        return cls(
            document["file"],
            document["line"],
            document["function"],
            document["kind"],
            document["became"],
            tuple(document["proven"]),
            tuple(document["unproven"]),
        )


@dataclass(frozen=True)
class Artifact:
    """The facts of a sidecar, and where the artifact is."""

    path: Path
    format: str
    signature: Signature
    sha256: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the weights come from: their sha256, the dataset, versions, git commit, configuration."""
    parity: Mapping[str, Any] = field(default_factory=dict)
    """The verdict ("passed"), how many comparisons, the largest difference."""
    samples: Sample | None = None
    """Inputs and what eager answers to them (of lower precision: the artifact itself), so that whoever loads the
    artifact later can check it on the spot."""
    control_flow: tuple[ControlFlow, ...] = ()
    """Each place where the model's Python decides by data, what it became, and which ways were proven."""
    task: str = TENSORS
    """What a server makes of it: "image-classification" (pixels to classes) or "tensors" (as the signature says)."""
    precision: str = ""
    """ "int8" where it is rounded to that, and held to the task instead of to eager's values."""

    @property
    def sidecar(self) -> Path:
        return sidecar_of(self.path)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "file": self.path.name,
            "format": self.format,
            "sha256": self.sha256,
            **self.signature.to_json(),
            "provenance": dict(self.provenance),
            "parity": dict(self.parity),
            "control_flow": [site.to_json() for site in self.control_flow],
            "task": self.task,
            "samples": self.samples.to_json() if self.samples else None,
            **({"precision": self.precision} if self.precision else {}),
        }

    def write_sidecar(self) -> None:
        write_json(self.sidecar, self.to_json())


def sidecar_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def read_artifact(path: Path, error: type[DeploypipeError] = UsageError) -> Artifact:
    """The artifact at `path` by its sidecar. `error` where either is missing; ParityError where the bytes changed."""
    if not path.is_file():
        raise error(f"no artifact at {path}", "Write it with `deploypipe export`.")
    remedy = f"Write {path.name} anew with `deploypipe export`."
    document = read_json(sidecar_of(path), SCHEMA, error, remedy, SIDECAR)
    try:
        _check_sidecar(path, document)
        artifact = Artifact(
            path=path,
            format=document["format"],
            signature=Signature.from_json(document),
            sha256=document["sha256"],
            provenance=document["provenance"],
            parity=document["parity"],
            samples=Sample.from_json(document["samples"]) if document["samples"] is not None else None,
            control_flow=tuple(ControlFlow.from_json(site) for site in document["control_flow"]),
            task=document["task"],
            precision=str(document.get("precision", "")),
        )
        if artifact.samples:
            _check_samples(artifact.samples, artifact.signature)
    # What decoding a sample raises: AttributeError and TypeError for no dtype, RuntimeError for a wrong length.
    except (ValueError, TypeError, AttributeError, RuntimeError) as cause:
        raise error(f"{sidecar_of(path)} is damaged: {first_line(cause)}", remedy) from cause
    if sha256_file(path) != artifact.sha256:
        raise ParityError(f"{path} is not the file that was proven: its sha256 differs from its sidecar's", remedy)
    return artifact


def _check_sidecar(path: Path, document: Mapping[str, Any]) -> None:
    """ValueError for facts that contradict each other or the file's name."""
    format = FORMATS.get(document["format"])
    if format is None or format.suffix != path.suffix:
        raise ValueError(f"its format, {document['format']!r}, is not that of {path.name}")
    if document["task"] not in (IMAGE_CLASSIFICATION, TENSORS):
        raise ValueError(f"no task {document['task']!r}")
    if len(leaf_names(document["structure"])) != len(document["outputs"]):
        raise ValueError("its structure does not nest its outputs")
    if document["samples"] is not None:
        check_shape(document["samples"], SAMPLES, "samples")


def _check_samples(samples: Sample, signature: Signature) -> None:
    """ValueError for samples that are not what the signature says."""
    for specs, tensors in ((signature.inputs, samples.inputs), (signature.outputs, samples.outputs)):
        if len(specs) != len(tensors):
            raise ValueError(f"{len(tensors)} sample tensors for {len(specs)} of its signature")
        for spec, tensor in zip(specs, tensors, strict=True):
            sizes = list(zip(spec.shape, tensor.shape, strict=False))
            fits = len(spec.shape) == tensor.ndim and all(isinstance(axis, str) or axis == n for axis, n in sizes)
            if not fits or dtype_name(tensor.dtype) != spec.dtype:
                raise ValueError(f"its sample of {spec} is {dtype_name(tensor.dtype)}{list(tensor.shape)}")


def format_of(path: Path) -> Format:
    """By suffix. UsageError for one that no format has."""
    for candidate in FORMATS.values():
        if path.suffix == candidate.suffix:
            return candidate
    known = ", ".join(f"{entry.suffix} ({entry.name})" for entry in FORMATS.values())
    raise UsageError(f"{path} has no artifact's suffix", f"Known: {known}.")


def read_runner(path: Path, device: str = "cpu", threads: int | None = None) -> Runner:
    """Load an artifact whatever its sidecar says; ParityError when the file itself cannot be read."""
    if not path.is_file():
        raise UsageError(f"no artifact at {path}", "Write it with `deploypipe export`.")
    try:
        return format_of(path).read(path, device, threads)
    except DeploypipeError:
        raise
    except DeviceUnavailable as cause:
        raise UsageError(str(cause), "`deploypipe doctor` shows what this machine has.") from cause
    except Exception as cause:
        raise ParityError(
            f"{path} cannot be loaded on {device}: {first_line(cause)}", "Write it anew with `deploypipe export`."
        ) from cause


def load(path: str | Path, device: str = "cpu", threads: int | None = None) -> Runner:
    """A Runner for the artifact at `path`: `runner(*inputs)` takes and returns what the eager module does.

    `device`: "cpu", "cuda", "cuda:1". `threads`: CPU threads of one call; None leaves it to the runtime.
    ParityError when the file is not the one that its sidecar describes; a file without a sidecar is loaded as it is.
    """
    path = Path(path)
    if sidecar_of(path).exists():
        read_artifact(path)
    return read_runner(path, device, threads)
