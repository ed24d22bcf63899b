"""Batches as TorchServe sends them: read as its own reader reads them, however they arrive."""

import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ts.protocol import otf_message_handler as protocol

from deploypipe.serve.torchserve import wire

ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(str.encode)
REQUEST = st.tuples(
    ASCII,
    st.lists(st.tuples(ASCII, st.binary(max_size=40)), max_size=4),
    st.lists(
        st.tuples(ASCII, st.sampled_from([b"", b"application/octet-stream"]), st.binary(max_size=3000)), max_size=3
    ),
)
Requests = list[tuple[bytes, list[tuple[bytes, bytes]], list[tuple[bytes, bytes, bytes]]]]
END = struct.pack("!i", -1)
THEIRS = protocol._retrieve_inference_msg
"""Noted before any test runs: a handler that another test initialises in this process replaces it."""


def message(requests: Requests) -> bytes:
    """As TorchServe's ModelRequestEncoder writes a batch, after its command byte."""
    content = b""
    for identity, headers, parameters in requests:
        content += _field(identity)
        content += b"".join(_field(name) + _field(value) for name, value in headers) + END
        content += b"".join(b"".join(map(_field, parameter)) for parameter in parameters) + END
    return content + END


def _field(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content


def received(content: bytes, cut: int, read: object) -> object:
    """What `read` makes of `content`, which comes in two pieces."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending = threading.Thread(target=lambda: [theirs.sendall(piece) for piece in (content[:cut], content[cut:])])
        sending.start()
        found = read(ours)  # type: ignore[operator]
        sending.join()
        return found


@settings(max_examples=60, deadline=None)
@given(requests=st.lists(REQUEST, max_size=5), where=st.floats(0, 1))
def test_it_reads_what_torchserves_own_reader_reads(requests: Requests, where: float) -> None:
    content = message(requests)
    cut = int(where * len(content))
    assert received(content, cut, wire.read_batch) == received(content, cut, THEIRS)


def test_a_front_end_that_is_gone_ends_the_worker() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(message([(b"1", [], [(b"body", b"", b"x" * 100)])])[:50])
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(SystemExit):
            wire.read_batch(ours)


@pytest.mark.parametrize(("version", "ours"), [("0.12.0", True), ("0.13.0", False)])
def test_only_the_version_that_is_known_is_read_this_way(
    monkeypatch: pytest.MonkeyPatch, version: str, ours: bool
) -> None:
    import ts

    monkeypatch.setattr(ts, "__version__", version)
    monkeypatch.setattr(protocol, "_retrieve_inference_msg", THEIRS)
    wire.install()
    assert (protocol._retrieve_inference_msg is wire.read_batch) == ours
