"""An artifact loaded from its file: NumPy arrays in, NumPy arrays out. This module travels inside archives."""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..contract.records import from_document
from ..contract.signature import Signature
from ..contract.tensors import Array

METADATA = "deploypipe.json"
"""The name under which an artifact carries its own description (signature, provenance) inside the file."""
SEAL = "deploypipe.parity.json"
"""The name of the entry that is added once the artifact is proven: the verdict, and the digest of what was proven."""


class DeviceUnavailable(ValueError):
    """The device asked for is not there, or the runtime cannot use it."""


class Session(ABC):
    """Whatever answers as an artifact does: the flat list of its input arrays → the flat list of its output arrays."""

    runtime: str
    """What executes it, the row of the tolerance table: "torch" or "onnxruntime"."""
    provider: str
    """Where it really runs: "cpu", "cuda:0", "CPUExecutionProvider", …"""

    def __init__(self, metadata: str, seal: str, device: str) -> None:
        """`metadata` and `seal` are the texts of the entries `METADATA` and `SEAL`, "" where the file has none."""
        self.metadata: Mapping[str, Any] = json.loads(metadata or "{}")
        self.seal: Mapping[str, Any] = json.loads(seal or "{}")
        """{"verdict", "sha256"}: that it was proven, and the digest of its sidecar's parity; empty when it was not."""
        self.device = device
        self.signature = from_document(self.metadata["signature"], Signature) if self.metadata else None
        """None for a file that deploypipe did not write."""

    @property
    def precision(self) -> str:
        """ "int8" of an artifact whose values are rounded to that, on purpose; "" where they are eager's."""
        return str(self.metadata.get("precision", ""))

    @abstractmethod
    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs of one call, in the signature's order. Raises what the runtime raises."""

    @property
    def stoppable(self) -> bool:
        """Whether a call that never ends can be ended."""
        return True

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """A call in the block that uses more processor time than this raises Overrun, where it can be ended."""
        yield


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
