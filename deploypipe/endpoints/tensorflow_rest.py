"""`/v1/models/<name>:predict` with one JSON value a row, as TensorFlow Serving and KServe v1 take it.

A row of a model with one input is its value; of one with several, an object by their names; likewise the answers. So
every input and output has a batch axis, the first. The answers carry no dtype: they are read as the module's own.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploypipe.contract.protocol import from_lists, to_lists
from deploypipe.contract.rejection import Rejection
from deploypipe.contract.signature import TensorSpec
from deploypipe.contract.tensors import Array
from deploypipe.endpoints.asking import Asker, json_object
from deploypipe.endpoints.endpoint import Endpoint, Named
from deploypipe.endpoints.inference_protocol import with_numbers
from deploypipe.errors import ServingError

DTYPES_OF_TENSORFLOW = {
    "DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16", "DT_BFLOAT16": "bfloat16", "DT_BOOL": "bool",
    "DT_UINT8": "uint8", "DT_INT8": "int8", "DT_INT16": "int16", "DT_INT32": "int32", "DT_INT64": "int64",
}  # fmt: skip


class TensorflowRest(Endpoint):
    protocol = "TensorFlow Serving's REST, instances"
    leading_axis_is_free = True

    def infer(self, inputs: Sequence[Named], wanted: Sequence[TensorSpec]) -> list[Named]:
        arrays = [to_lists(array) for _, array in inputs]
        names = [name for name, _ in inputs]
        rows = zip(*arrays, strict=True)
        instances = arrays[0] if len(arrays) == 1 else [dict(zip(names, row, strict=True)) for row in rows]
        body = json.dumps({"instances": instances}).encode()
        content, _ = self.ask(f"/v1/models/{self.name}:predict", body, "application/json")
        try:
            rows = json.loads(content)["predictions"]
            named = bool(rows) and isinstance(rows[0], Mapping)
            if len(wanted) > 1 and not named:
                raise ValueError(f"it has one output, the module {len(wanted)}")
            names = list(rows[0]) if named else [wanted[0].name]
            columns = {name: [row[name] for row in rows] if named else rows for name in names}
            return [(name, self._read(name, columns[name], wanted)) for name in names]
        except (KeyError, TypeError, ValueError, AttributeError, Rejection) as cause:
            raise ValueError(f"the answer cannot be read as predictions: {cause}") from cause

    def _read(self, name: str, rows: Any, wanted: Sequence[TensorSpec]) -> Array:
        known = {spec.name: spec for spec in wanted} | {
            own.name: spec for own, spec in zip(self.outputs, wanted, strict=False)
        }
        spec = known.get(name, wanted[0])
        array = from_lists(with_numbers(rows), spec.dtype, f"output {name!r}")
        if array.size:
            return array
        rest = [size for size in spec.shape[1:] if isinstance(size, int)]
        return np.zeros([0, *rest], array.dtype)


def tensorflow_model(asker: Asker, name: str) -> TensorflowRest | None:
    """The model, if the server has it by this protocol; ServingError where it is not ready."""
    status = json_object(asker.get(f"/v1/models/{name}"))
    if status is None or not ({"model_version_status", "ready"} & set(status)):
        return None
    states = [version.get("state") for version in status.get("model_version_status", [])]
    if (states and "AVAILABLE" not in states) or status.get("ready") in (False, "False"):
        raise ServingError(
            f"{name!r} at {asker.url} is not ready: {', '.join(map(str, states)) or 'it says so itself'}"
        )
    metadata = json_object(asker.get(f"/v1/models/{name}/metadata")) or {}
    return TensorflowRest(asker, name, *_declared(metadata))


def _declared(metadata: Mapping[str, Any]) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of the default signature; none where the server does not tell."""
    try:
        signatures = metadata["metadata"]["signature_def"]["signature_def"]
        chosen = signatures.get("serving_default") or next(iter(signatures.values()))
        inputs, outputs = ([_spec(*item) for item in chosen[kind].items()] for kind in ("inputs", "outputs"))
        return inputs, outputs
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return [], []


def _spec(name: str, facts: Mapping[str, Any]) -> TensorSpec:
    sizes = [int(dim["size"]) for dim in facts["tensor_shape"].get("dim", [])]
    dtype = DTYPES_OF_TENSORFLOW.get(facts["dtype"], str(facts["dtype"]).lower())
    shape: tuple[int | str, ...] = tuple(f"{name}_{axis}" if n < 0 else n for axis, n in enumerate(sizes))
    return TensorSpec(name, dtype, shape)
