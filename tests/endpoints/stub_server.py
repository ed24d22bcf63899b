"""A server on loopback that speaks the protocols of others, written from their public descriptions."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
DATATYPES = {"float32": "FP32", "float64": "FP64", "uint8": "UINT8", "int64": "INT64", "bool": "BOOL"}
TENSORFLOW = {"float32": "DT_FLOAT", "uint8": "DT_UINT8", "int64": "DT_INT64"}
Tensors = Sequence[tuple[str, str, Sequence[int]]]
"""Name, dtype and shape of each, -1 for any size."""


@dataclass
class Stub:
    """One model, called `net`."""

    answer: Callable[[Arrays], Arrays]
    inputs: Tensors = ()
    outputs: Tensors = ()
    protocol: str = "v2"
    """ "v2", "v2 bytes", "v1", or something that nobody knows."""
    token: str = ""
    ready: bool = True
    largest_batch: int = 0
    asked: list[str] = field(default_factory=list)
    """The paths of the requests."""

    def get(self, path: str) -> tuple[int, Any]:
        version, known = self.protocol[:2], path.endswith("/net") or "/net/" in path
        if not path.startswith(f"/{version}") or (path != "/v2" and not known):
            return 404, {"error": "nothing here"}
        last = path.rpartition("/")[2]
        if version == "v2":
            extensions = ["binary_tensor_data"] if "bytes" in self.protocol else []
            documents = {
                "v2": {"name": "stub", "version": "1", "extensions": [*extensions, "model_configuration"]},
                "net": {"name": "net", "platform": "stub", "inputs": _v2(self.inputs), "outputs": _v2(self.outputs)},
                "config": {"name": "net", "max_batch_size": self.largest_batch},
                "ready": {},
            }
            return (200 if self.ready or last != "ready" else 503), documents[last]
        if last == "net":
            return 200, {"model_version_status": [{"state": "AVAILABLE" if self.ready else "LOADING"}]}
        if not self.inputs:
            return 404, {"error": "no metadata"}
        signature = {"inputs": _tensorflow(self.inputs), "outputs": _tensorflow(self.outputs)}
        return 200, {"metadata": {"signature_def": {"signature_def": {"serving_default": signature}}}}

    def post(self, path: str, body: bytes, head: str | None) -> tuple[int, bytes, int | None]:
        if path == "/v2/repository/index":
            return 200, json.dumps([{"name": "net"}]).encode(), None
        if self.protocol == "v1":
            instances = json.loads(body)["instances"]
            names = [name for name, _, _ in self.inputs] or ["x"]
            columns = {name: [row[name] for row in instances] for name in names} if len(names) > 1 else None
            found = self.answer(
                {name: np.float32(values) for name, values in (columns or {names[0]: instances}).items()}
            )
            rows = [dict(zip(found, row, strict=True)) for row in zip(*map(_listed, found.values()), strict=True)]
            single = [next(iter(row.values())) for row in rows]
            return 200, json.dumps({"predictions": rows if len(found) > 1 else single}).encode(), None
        length = int(head) if head else len(body)
        request, tail, arrays = json.loads(body[:length]), body[length:], {}
        for item in request["inputs"]:
            dtype = next(name for name, datatype in DATATYPES.items() if datatype == item["datatype"])
            size = item.get("parameters", {}).get("binary_data_size", 0)
            flat = np.frombuffer(tail[:size], dtype) if head else np.array(item["data"], dtype)
            arrays[item["name"]], tail = flat.reshape(item["shape"]), tail[size:]
        if self.largest_batch and max(map(len, arrays.values())) > self.largest_batch:
            return 400, b'{"error": "batch too large"}', None
        found, items = self.answer(arrays), []
        for name, array in found.items():
            item = {"name": name, "shape": list(array.shape), "datatype": DATATYPES[str(array.dtype)]}
            told = {"parameters": {"binary_data_size": array.nbytes}} if head else {"data": _listed(array.reshape(-1))}
            items.append(item | told)
        answer = json.dumps({"model_name": "net", "outputs": items}).encode()
        if not head:
            return 200, answer, None
        return 200, answer + b"".join(array.tobytes() for array in found.values()), len(answer)


def _listed(array: np.ndarray) -> list[Any]:
    """As MLServer and others write it: `null` for what is no number."""
    return json.loads(json.dumps(array.tolist()).replace("NaN", "null"))


def _v2(tensors: Tensors) -> list[Mapping[str, Any]]:
    return [{"name": name, "datatype": DATATYPES[dtype], "shape": list(shape)} for name, dtype, shape in tensors]


def _tensorflow(tensors: Tensors) -> dict[str, Any]:
    return {
        name: {"dtype": TENSORFLOW[dtype], "tensor_shape": {"dim": [{"size": str(size)} for size in shape]}}
        for name, dtype, shape in tensors
    }


@contextmanager
def serving_stub(stub: Stub) -> Iterator[str]:
    """The address at which it answers while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _send(self, status: int, body: bytes, head: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if head is not None:
                self.send_header("Inference-Header-Content-Length", str(head))
            self.end_headers()
            self.wfile.write(body)

        def _allowed(self) -> bool:
            stub.asked.append(self.path)
            allowed = not stub.token or self.headers.get("Authorization") == f"Bearer {stub.token}"
            if not allowed:
                self._send(401, b'{"error": "no valid token"}')
            return allowed

        def do_GET(self) -> None:
            if self._allowed():
                status, document = stub.get(self.path)
                self._send(status, json.dumps(document).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self._allowed():
                self._send(*stub.post(self.path, body, self.headers.get("Inference-Header-Content-Length")))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
