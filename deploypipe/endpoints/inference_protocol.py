"""The Open Inference Protocol v2 over HTTP. Tensors go as bytes where the server knows that extension, else as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploypipe.contract.protocol import DATATYPES, DTYPES, from_lists, to_lists
from deploypipe.contract.rejection import Rejection
from deploypipe.contract.signature import TensorSpec, dtype_name
from deploypipe.contract.tensors import Array, as_dtype
from deploypipe.endpoints.asking import Asker, json_object, said_by
from deploypipe.endpoints.endpoint import Endpoint, Named
from deploypipe.errors import ServingError

BINARY = "binary_tensor_data"


class InferenceProtocol(Endpoint):
    """A model that a server describes at `/v2/models/<name>`."""

    def __init__(self, asker: Asker, name: str, metadata: Mapping[str, Any], extensions: Sequence[str]) -> None:
        inputs, outputs = (_specs(metadata.get(kind), kind) for kind in ("inputs", "outputs"))
        super().__init__(asker, name, inputs, outputs)
        self.binary = BINARY in extensions
        self.carries_non_finite = self.binary
        self.protocol = "Open Inference Protocol v2, " + ("tensors as bytes" if self.binary else "tensors as JSON")
        if "model_configuration" in extensions:
            described = json_object(asker.get(f"/v2/models/{name}/config")) or {}
            self.largest_batch = described.get("max_batch_size") or None

    def infer(self, inputs: Sequence[Named], wanted: Sequence[TensorSpec]) -> list[Named]:
        head: dict[str, Any] = {"inputs": [self._item(name, array) for name, array in inputs]}
        path, tail, headers = f"/v2/models/{self.name}/infer", b"", {}
        if self.binary:
            head["parameters"] = {"binary_data_output": True}
            tail = b"".join(np.ascontiguousarray(array).tobytes() for _, array in inputs)
        body = json.dumps(head).encode()
        if self.binary:
            headers["inference-header-content-length"] = str(len(body))
        content_type = "application/octet-stream" if self.binary else "application/json"
        return _outputs(*self.ask(path, body + tail, content_type, **headers))

    def _item(self, name: str, array: Array) -> dict[str, Any]:
        item: dict[str, Any] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": DATATYPES[dtype_name(array.dtype)],
        }
        if self.binary:
            return {**item, "parameters": {"binary_data_size": array.nbytes}}
        return {**item, "data": to_lists(array.reshape(-1))}


def protocol_model(asker: Asker, name: str) -> InferenceProtocol | None:
    """The model, if the server speaks this protocol; ServingError where it does and has no such model, or one that is
    not ready."""
    server = json_object(asker.get("/v2"))
    answer = asker.get(f"/v2/models/{name}")
    metadata = json_object(answer)
    if metadata is None or not ("name" in metadata or "inputs" in metadata):
        if server is None or "extensions" not in server:
            return None
        ready = asker.get(f"/v2/models/{name}/ready")
        if ready.status_code != 200 and answer.status_code >= 500:
            raise ServingError(f"{asker.url} has {name!r}, which is not ready: {said_by(answer)}")
        others = _listed(asker)
        serves = f"; it serves {', '.join(others)}" if others else ""
        said = said_by(answer)
        raise ServingError(f"{asker.url} serves no model {name!r}{serves}" + (f" (it says: {said})" if said else ""))
    ready = asker.get(f"/v2/models/{name}/ready")
    if ready.status_code != 200:
        said = said_by(ready)
        raise ServingError(f"{name!r} at {asker.url} is not ready (HTTP {ready.status_code})" + (said and f": {said}"))
    extensions = (server or {}).get("extensions") or []
    return InferenceProtocol(asker, name, metadata, [str(extension) for extension in extensions])


def _listed(asker: Asker) -> list[str]:
    """The names of the server's models, if it lists them."""
    response = asker.post("/v2/repository/index", b"{}", {"content-type": "application/json"})
    try:
        return sorted({str(item["name"]) for item in response.json()}) if response.status_code == 200 else []
    except (ValueError, KeyError, TypeError):
        return []


def _specs(items: Any, kind: str) -> list[TensorSpec]:
    """What a server declares; a size of -1 is any."""
    try:
        return [
            TensorSpec(
                str(item["name"]),
                DTYPES.get(str(item["datatype"]), str(item["datatype"]).lower()),
                tuple(_axis(kind, place, axis, int(size)) for axis, size in enumerate(item["shape"])),
            )
            for place, item in enumerate(items or [])
        ]
    except (KeyError, TypeError, ValueError) as cause:
        raise ServingError(f"the server's description of its {kind} cannot be read: {cause!r}") from cause


def _axis(kind: str, place: int, axis: int, size: int) -> int | str:
    return f"{kind}{place}_{axis}" if size < 0 else size


def _outputs(body: bytes, head_length: str) -> list[Named]:
    """The tensors of an answer, whose JSON may be followed by the bytes of some of them."""
    try:
        length = int(head_length or len(body))
        head, tail = json.loads(body[:length]), body[length:]
        found = []
        for item in head["outputs"]:
            size = (item.get("parameters") or {}).get("binary_data_size")
            array, tail = _array(item, tail[:size] if size is not None else None), tail[size or 0 :]
            found.append((str(item["name"]), array))
        return found
    except (KeyError, TypeError, ValueError, AttributeError, Rejection) as cause:
        raise ValueError(f"the answer cannot be read by the Open Inference Protocol v2: {cause}") from cause


def _array(item: Mapping[str, Any], content: bytes | None) -> Array:
    name, datatype, shape = item["name"], item["datatype"], [int(size) for size in item["shape"]]
    if datatype not in DTYPES:
        raise ValueError(f"output {name!r} is {datatype}, which is no tensor of numbers")
    if content is not None:
        # A copy, which may be written to: PyTorch warns of arrays that may not.
        array = np.frombuffer(bytearray(content), as_dtype(DTYPES[datatype]))
    else:
        array = from_lists(with_numbers(item["data"]), DTYPES[datatype], f"output {name!r}").reshape(-1)
    if array.size != math.prod(shape):
        raise ValueError(f"output {name!r} has {array.size} values for shape {shape}")
    return array.reshape(shape)


def with_numbers(values: Any) -> Any:
    """JSON as some servers write it: `null` for what is no number."""
    if isinstance(values, list):
        return [with_numbers(value) for value in values]
    return math.nan if values is None else values
