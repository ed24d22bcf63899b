"""TorchServe's batches, read from its socket in one piece. Travels inside archives.

TorchServe 0.12's own reader asks the kernel for every length and every value, some thirty times a request, which costs
more than the answer of a small network. This one reads what has arrived and takes it apart in memory; what it returns
is the same, but that bodies are never parsed on the way (`decode_input_request=false` says so to the other one).
"""

import socket
import sys
from struct import Struct
from typing import Any

_INT = Struct("!i")
_END = -1
"""In the place of a length: the list ends here."""
_CHUNK = 1 << 18
_VERSION = "0.12."
"""Of TorchServe: the layout below is what its `ts/protocol/otf_message_handler.py` documents."""


def install() -> None:
    """In a worker of TorchServe, read batches this way from now on. Elsewhere, or in another version: do nothing."""
    protocol = sys.modules.get("ts.protocol.otf_message_handler")
    if protocol is not None and str(getattr(sys.modules["ts"], "__version__", "")).startswith(_VERSION):
        protocol._retrieve_inference_msg = read_batch  # type: ignore[attr-defined]


def read_batch(connection: socket.socket) -> list[dict[str, Any]]:
    """The requests that follow a batch's command byte. SystemExit when TorchServe is gone.

    TorchServe sends the next batch only after the answer to this one, so nothing of another can have arrived.
    """
    stream = _Stream(connection)
    batch = []
    while (identity := stream.field()) is not None:
        headers = []
        while (name := stream.field()) is not None:
            headers.append({"name": name, "value": stream.field()})
        parameters = []
        while (name := stream.field()) is not None:
            content_type = (stream.field() or b"").decode()
            parameters.append({"name": name.decode(), "contentType": content_type, "value": stream.field()})
        batch.append({"requestId": identity, "headers": headers, "parameters": parameters})
    return batch


class _Stream:
    """Fields with their lengths before them."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._content = b""
        self._at = 0

    def field(self) -> bytes | None:
        """The next field; None where a list ends."""
        at = self._at + _INT.size
        if at > len(self._content):
            at = self._receive(_INT.size)
        (length,) = _INT.unpack_from(self._content, at - _INT.size)
        if length == _END:
            self._at = at
            return None
        self._at = at
        end = at + length
        if end > len(self._content):
            end = self._receive(length)
        self._at = end
        return self._content[end - length : end]

    def _receive(self, size: int) -> int:
        """Wait until `size` bytes lie ahead; returns where they end."""
        parts = [self._content[self._at :]]
        missing = size - len(parts[0])
        while missing > 0:
            part = self._connection.recv(_CHUNK)
            if not part:
                raise SystemExit(0)  # as TorchServe's own reader ends: the front end is gone
            parts.append(part)
            missing -= len(part)
        self._content = b"".join(parts)
        self._at = 0
        return size
