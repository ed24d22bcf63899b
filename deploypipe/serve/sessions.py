"""A packed archive and a running server as sessions, so that parity compares them with eager as it does artifacts.

Both are asked as any client asks: one JSON body by the Open Inference Protocol v2 a run. JSON keeps every float that
the protocol has bit by bit (Python writes the shortest decimal that reads back as the same float64); NaN and infinities
go as strings. What the handler refuses fails that run with the handler's own reason.
"""

import importlib
import json
import logging
import sys
import tempfile
import time
import zipfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from deploypipe.client import Client, Refused
from deploypipe.contract.archive import CODE, ENTRY_FILE, MANIFEST, Archive, read_archive
from deploypipe.contract.protocol import from_protocol, to_protocol, uncarried
from deploypipe.contract.rejection import Rejection
from deploypipe.contract.server import started_here
from deploypipe.contract.signature import Signature
from deploypipe.contract.tensors import Array
from deploypipe.errors import PackageError, UsageError, first_line
from deploypipe.formats.session import DeviceUnavailable, Session
from deploypipe.serve.service.limits import MAX_BODY


class ServingSession(Session):
    """What answers requests, asked for the outputs of one run at a time. A context manager."""

    def __init__(self, signature: Signature, precision: str, runtime: str, provider: str, device: str) -> None:
        if problem := uncarried(signature):
            raise UsageError(problem, "Compare the artifact itself: `deploypipe verify --artifact FILE`.")
        metadata = {"signature": signature.to_json(), "precision": precision}
        super().__init__(json.dumps(metadata), "", device)
        self.runtime = runtime
        self.provider = provider
        self.inputs, self.outputs = signature.inputs, signature.outputs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """ServingError when nobody answers; ValueError when the request is refused or the answer is not the
        signature's."""
        answer = self.answer(self._body(arrays))
        try:
            return list(from_protocol(answer["outputs"], self.outputs, "outputs"))
        except KeyError as cause:
            raise ValueError(f"the answer has no {cause.args[0]!r}") from cause
        except Rejection as cause:
            raise ValueError(f"the answer is not the signature's: {cause.message}") from cause

    def unsent(self, inputs: Sequence[Array]) -> str:
        """Why `inputs` cannot be sent in one request; "" when they can."""
        size = len(self._body(inputs))
        return f"its request has {size:,} bytes, one may have {MAX_BODY:,}" if size > MAX_BODY else ""

    def _body(self, inputs: Sequence[Array]) -> bytes:
        named = [to_protocol(spec.name, tensor) for spec, tensor in zip(self.inputs, inputs, strict=True)]
        return json.dumps({"inputs": named}, allow_nan=False).encode()

    @abstractmethod
    def answer(self, body: bytes) -> Mapping[str, Any]:
        """The JSON object that answers `body`; ValueError when it is refused."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what answers."""


def archive_session(path: Path, device: str = "cpu") -> "ArchiveSession":
    """The handler inside the `.mar` at `path`, loaded into this process as a TorchServe worker would load it: its own
    entry file and its own copies of deploypipe's code, unpacked into a temporary folder until `close`.

    PackageError when the archive is not as packaged or its handler does not load; UsageError for a device that is not
    here, and for a dtype that no request can carry.
    """
    return ArchiveSession(read_archive(path), device)


class ArchiveSession(ServingSession):
    def __init__(self, archive: Archive, device: str) -> None:
        kind, _, index = device.partition(":")
        if kind not in ("cpu", "cuda") or not (index or "0").isdecimal():
            raise UsageError(f"{device!r} is no device: an archive's handler runs on cpu or cuda")
        # A library that a runtime keeps open cannot be deleted everywhere.
        self._folder = tempfile.TemporaryDirectory(prefix="deploypipe-", ignore_cleanup_errors=True)
        try:
            folder = Path(self._folder.name)
            with zipfile.ZipFile(archive.path) as file:
                file.extractall(folder)
            self._code = _Code(folder)
            gpu = None if kind == "cpu" else int(index or 0)
            properties = {"model_dir": str(folder), "gpu_id": gpu, "batch_size": 1}
            self._context = Context(json.loads((folder / MANIFEST).read_text(encoding="utf-8")), properties)
            try:
                with worker_settings(), self._code.imported():
                    self.handler = importlib.import_module(_ENTRY).Entry()
                    self.handler.initialize(self._context)
            except Exception as cause:
                if type(cause).__name__ == DeviceUnavailable.__name__:
                    raise UsageError(str(cause), "`deploypipe doctor` shows what this machine has.") from cause
                # Its classes are the archive's own copies: none of ours would catch them.
                raise PackageError(
                    f"the handler in {archive.path} does not load: {first_line(cause)}",
                    "Build it anew with `deploypipe package`.",
                ) from cause
            runtime = self.handler.model.session.runtime
            super().__init__(archive.signature, archive.precision, runtime, "archive handler", device)
        except BaseException:
            self.close()
            raise

    def answer(self, body: bytes) -> Mapping[str, Any]:
        context = Context(self._context.manifest, self._context.system_properties)
        with worker_settings(), self._code.imported():
            (answer,) = self.handler.handle([{"body": bytearray(body)}], context)
        document: dict[str, Any] = json.loads(answer)
        if 0 in context.statuses:
            raise ValueError(f"the handler refuses the request (HTTP {context.statuses[0]}): {document['error']}")
        return document

    def rate(self, inputs: Sequence[Array], batch: int, seconds: float) -> float:
        """Requests a second that the handler answers in batches of `batch` such requests: the best of two batches or
        more, as many as fit into `seconds`, for whatever else this machine does meanwhile must not count for good."""
        items = [{"body": bytearray(self._body(inputs))}] * batch
        context = Context(self._context.manifest, self._context.system_properties)
        times: list[float] = []
        with worker_settings(), self._code.imported():
            self.handler.handle(items, context)  # the first run of a size may prepare it
            while len(times) < 2 or sum(times) < seconds:
                begin = time.perf_counter()
                self.handler.handle(items, context)
                times.append(time.perf_counter() - begin)
        return batch / min(times)

    def close(self) -> None:
        self._folder.cleanup()


def server_session(client: Client, signature: Signature | None = None, precision: str = "") -> "ServerSession":
    """The model that `client` asks, over HTTP.

    A server says nothing of a model's inputs and outputs. Of one that `serve` started on this machine they are known;
    of any other, `signature` must say what eager's are, and `precision` that it is rounded. UsageError where neither
    does, and for a dtype that no request can carry. `close` closes the client.
    """
    here = started_here(client.url)
    served = [archive for archive in here.archives if archive.name == client.name] if here else []
    if served:
        signature, precision = served[0].signature, served[0].precision
    if signature is None:
        raise UsageError(
            f"{client.url} was not started here: what {client.name!r} takes and returns is not known",
            "Give the run or the artifact that it serves.",
        )
    return ServerSession(client, signature, precision)


class ServerSession(ServingSession):
    def __init__(self, client: Client, signature: Signature, precision: str) -> None:
        # Its machine's kernels may sum in another order, whatever the format: the row for those, as in its archive.
        super().__init__(signature, precision, "onnxruntime", client.url, "server")
        self._client = client

    def answer(self, body: bytes) -> Mapping[str, Any]:
        try:
            return self._client.ask(body)
        except Refused as cause:
            raise ValueError(cause.message) from cause

    def close(self) -> None:
        self._client.close()


@dataclass
class Context:
    """What TorchServe's context offers a handler, and what the handler did with it."""

    manifest: Mapping[str, Any]
    system_properties: Mapping[str, Any]
    statuses: dict[int, int] = field(default_factory=dict)
    content_types: dict[int, str] = field(default_factory=dict)

    def get_request_header(self, idx: int, key: str) -> str | None:
        return None

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.statuses[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.content_types[idx] = value


_ENTRY = ENTRY_FILE.removesuffix(".py")


class _Code:
    """The Python modules of an archive that is unpacked in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._modules: dict[str, ModuleType] = {}

    @contextmanager
    def imported(self) -> Iterator[None]:
        """While the block runs, the names of an archive's modules mean this one's; afterwards what they meant before,
        for several archives may be loaded, each with its own code."""
        before = _taken_out()
        sys.modules.update(self._modules)
        sys.path.insert(0, self._folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(self._folder)
            self._modules = _taken_out()
            sys.modules.update(before)


def _taken_out() -> dict[str, ModuleType]:
    """The modules of whichever archive, which are found under their names no more."""
    names = [name for name in sys.modules if name.split(".")[0] in (CODE, _ENTRY)]
    return {name: sys.modules.pop(name) for name in names}


@contextmanager
def worker_settings() -> Iterator[None]:
    """A worker's process is its handler's own; this one is not, and gets back what the handler sets."""
    root = logging.getLogger()
    level = root.level
    formatters = [(handler, handler.formatter) for handler in root.handlers]
    try:
        yield
    finally:
        root.setLevel(level)
        for handler, formatter in formatters:
            handler.setFormatter(formatter)
