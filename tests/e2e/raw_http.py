"""HTTP by the byte, for requests that no library would send."""

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from deploypipe.contract.server import Server


def request(
    body: bytes = b"",
    *headers: str,
    method: str = "POST",
    path: str = "/predictions/onnx",
    version: str = "1.1",
    sized: bool = True,
) -> bytes:
    """A request as it goes over the wire; `sized` adds the body's Content-Length."""
    length = [f"Content-Length: {len(body)}"] if sized else []
    lines = [f"{method} {path} HTTP/{version}", "Host: here", *headers, *length]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + body


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    def __init__(self, server: Server, timeout: float = 60) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=timeout)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def answer(self) -> Answer | None:
        """The next answer on this connection; None where the server closed it instead."""
        try:
            start = self._file.readline()
        except ConnectionResetError:
            return None
        if not start:
            return None
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(start.split()[1]), headers, self._file.read(int(headers.get("content-length", 0))))


def ask(server: Server, content: bytes) -> Answer:
    with Connection(server) as connection:
        connection.send(content)
        answer = connection.answer()
    assert answer is not None, "the server closed the connection without an answer"
    return answer
