"""What a format is. This file travels inside archives, like each format's reader."""

import hashlib
import json
import logging
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..signature import Signature, TensorSpec, dtype_name, flatten, unflatten

if TYPE_CHECKING:
    from ..anatomy import Anatomy
    from ..capture import Capture

METADATA = "deploypipe.json"
"""The name under which an artifact carries its own description (signature, provenance) inside the file."""
SEAL = "deploypipe.parity.json"
"""The name of the entry that is added once the artifact is proven: the verdict, and the digest of what was proven."""


def digest_of(parity: Mapping[str, Any]) -> str:
    """sha256 over a sidecar's parity summary, by which a seal names it."""
    return hashlib.sha256(json.dumps(parity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class DeviceUnavailable(ValueError):
    """The device asked for is not there, or the runtime cannot use it."""


class Runner(ABC):
    """An artifact loaded from its file and ready to run: torch tensors in, what the eager module returns out."""

    runtime: str
    """What executes it, the row of the tolerance table: "torch" or "onnxruntime"."""
    provider: str
    """Where it really runs: "cpu", "cuda:0", "CPUExecutionProvider", …"""

    def __init__(self, metadata: str, seal: str, device: str) -> None:
        self.metadata: Mapping[str, Any] = json.loads(metadata or "{}")
        self.seal: Mapping[str, Any] = json.loads(seal or "{}")
        """{"verdict", "sha256"}: that it was proven, and the digest of its sidecar's parity; empty when it was not."""
        self.device = device
        self.signature = Signature.from_json(self.metadata["signature"]) if self.metadata else None
        """None for a file that deploypipe did not write."""

    @property
    def precision(self) -> str:
        """ "int8" of an artifact whose values are rounded to that, on purpose; "" where they are eager's."""
        return str(self.metadata.get("precision", ""))

    def __call__(self, *inputs: Tensor) -> Any:
        """Run on `inputs`, in the signature's order. TypeError where their number, dtypes or shapes do not fit."""
        if self.signature is not None:
            for problem in mismatches(self.signature.inputs, inputs):
                raise TypeError(problem)
            return unflatten(self.run(*inputs), self.signature.structure)
        leaves = self.run(*inputs)
        return leaves[0] if len(leaves) == 1 else tuple(leaves)

    @abstractmethod
    def run(self, *inputs: Tensor) -> list[Tensor]:
        """The output tensors, flat and on the CPU."""


class TorchRunner(Runner):
    """An artifact that PyTorch itself runs, as `module` on `device`, with at most `threads` CPU threads."""

    runtime = "torch"
    module: Callable[..., Any]
    threads: int | None

    @property
    def provider(self) -> str:  # type: ignore[override]
        return self.device

    def run(self, *inputs: Tensor) -> list[Tensor]:
        with inference(), cpu_threads(self.threads):
            outputs = self.module(*(tensor.to(self.device) for tensor in inputs))
        return [leaf.cpu() for leaf in flatten(outputs)[0]]


Write = Callable[["Capture", Path, str, Sequence[tuple[Tensor, ...]]], str]


@dataclass(frozen=True)
class Format:
    """How one kind of artifact is written and read back.

    `write(capture, path, metadata, probes)` writes one file and returns what is worth saying about how (may be empty);
    of several ways to write it, it takes one that agrees with eager on the probes.
    `read(path, device, threads)` gives a Runner; `threads` bounds the CPU threads of one call, where it can.
    `carries` says in a line what it can hold.
    `seal(path, text)` adds the entry `SEAL` to a written file and changes nothing else.
    `variants(path, device)` names circumstances of this format alone under which its artifacts must do the same.
    `inspect(path)` opens the file for the parity gate; it imports what it needs when called, for that does not travel.
    """

    name: str
    suffix: str
    carries: str
    write: Write
    read: Callable[[Path, str, int | None], Runner]
    seal: Callable[[Path, str], None]
    variants: Callable[[Path, str], Mapping[str, Callable[[], Runner]]] = lambda path, device: {}
    inspect: Callable[[Path], "Anatomy"] | None = None


def seal_zip(path: Path, text: str) -> None:
    """`SEAL` in a file as torch writes them: a zip with one folder, whose `extra/` is for its users."""
    with zipfile.ZipFile(path, "a") as file:
        root = file.namelist()[0].partition("/")[0]
        entry = zipfile.ZipInfo(f"{root}/extra/{SEAL}", (1980, 1, 1, 0, 0, 0))
        file.writestr(entry, text)


def mismatches(specs: Sequence[TensorSpec], tensors: Sequence[Tensor]) -> list[str]:
    """Why `tensors` do not fit `specs`, a line each; a symbol met twice must have one size."""
    if len(specs) != len(tensors):
        return [f"expected {len(specs)} inputs ({', '.join(map(str, specs))}), got {len(tensors)}"]
    sizes: dict[str, int] = {}
    found = []
    for spec, tensor in zip(specs, tensors, strict=True):
        fits = dtype_name(tensor.dtype) == spec.dtype and tensor.dim() == len(spec.shape)
        fits = fits and all(
            size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
            for axis, size in zip(spec.shape, tensor.shape, strict=True)
        )
        if not fits:
            found.append(f"expected {spec}, got {dtype_name(tensor.dtype)}{list(tensor.shape)}")
    return found


def as_torch_device(device: str) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError as cause:
        raise DeviceUnavailable(f"{device!r} is no device: {str(cause).splitlines()[0]}") from cause
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(f"device {device!r} was asked for, but torch finds no CUDA device here")
    return chosen


@contextmanager
def inference() -> Iterator[None]:
    """No gradients; and on a GPU no TF32, whose 10 bits of mantissa are another answer than float32's."""
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """At most `count` threads for an operator; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def errors_only(name: str) -> Iterator[None]:
    """Silence a foreign logger's warnings about what is none of the user's business."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
