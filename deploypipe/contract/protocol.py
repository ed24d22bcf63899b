"""Arrays ↔ JSON: the Open Inference Protocol v2's tensors, and plain nested lists. This module travels inside archives.

JSON has no NaN or infinity: they are written, and accepted for floating-point tensors, as the strings "NaN",
"Infinity" and "-Infinity", as in Protocol Buffers' JSON.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .rejection import UNPROCESSABLE, Rejection
from .signature import Signature, TensorSpec, described, dtype_name
from .tensors import Array, as_dtype

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def uncarried(signature: Signature) -> str:
    """Which tensor of a model no request or answer can carry; "" where there is none."""
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if spec.dtype not in DATATYPES:
                return f"{kind} {spec.name!r} is {spec.dtype}, which the Open Inference Protocol does not carry"
    return ""


def to_lists(array: Array) -> Any:
    """Nested lists (a number for a 0-d array) that JSON can hold."""
    if array.dtype.kind == "V":  # bfloat16: float32 holds its values
        array = array.astype(np.float32)
    values = array.tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return _named(values)
    return values


def _named(values: Any) -> Any:
    if isinstance(values, list):
        return [_named(value) for value in values]
    if math.isfinite(values):
        return values
    return "NaN" if math.isnan(values) else "Infinity" if values > 0 else "-Infinity"


def from_lists(values: Any, dtype: str, where: str) -> Array:
    """Nested lists as an array of `dtype`. Rejection when they are ragged, of another kind, or out of range."""
    kind = as_dtype(dtype)
    floating = kind.kind in "fV"
    try:
        array = np.array(values)
        if floating and array.dtype.kind == "U":
            array = np.array(_numbers(values))
    except (ValueError, OverflowError) as cause:
        raise Rejection(UNPROCESSABLE, f"{where} is ragged; nested lists of one shape are accepted") from cause
    allowed = "b" if kind.kind == "b" else "iuf" if floating else "iu"
    if array.size and array.dtype.kind not in allowed:
        raise Rejection(UNPROCESSABLE, f"{where} holds values that are not {dtype}")
    if floating:
        wide = array.astype(np.float64)
        with np.errstate(over="ignore"):
            narrow = wide.astype(kind)
        if (np.isinf(narrow.astype(np.float64)) & np.isfinite(wide)).any():
            raise Rejection(UNPROCESSABLE, f"{where} has values beyond {dtype}")
        return narrow
    if kind.kind != "b" and array.size:
        limits = np.iinfo(kind)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise Rejection(
                UNPROCESSABLE, f"{where} has values outside {limits.min}..{limits.max}, which {dtype} holds"
            )
    return array.astype(kind)


def _numbers(values: Any) -> Any:
    if isinstance(values, list):
        return [_numbers(value) for value in values]
    if isinstance(values, str):
        if values not in _NOT_FINITE:
            raise Rejection(UNPROCESSABLE, f"{values[:40]!r} is no number; of strings only {list(_NOT_FINITE)} are")
        return _NOT_FINITE[values]
    return values


def to_protocol(name: str, array: Array) -> dict[str, Any]:
    """`{"name", "shape", "datatype", "data"}` with the data flat, as the protocol writes it."""
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": DATATYPES[dtype_name(array.dtype)],
        "data": to_lists(array.reshape(-1)),
    }


def from_protocol(items: Any, specs: Sequence[TensorSpec], what: str = "inputs") -> tuple[Array, ...]:
    """The protocol's tensors in the order of `specs`; data flat or nested. Rejection where they do not fit."""
    accepted = f"accepted {what}: {', '.join(map(str, specs))}"
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise Rejection(UNPROCESSABLE, f"{what!r} must be a list of objects; {accepted}")
    by_name = {item.get("name"): item for item in items if isinstance(item.get("name"), str)}
    if len(by_name) != len(items) or set(by_name) != {spec.name for spec in specs}:
        raise Rejection(UNPROCESSABLE, f"{what!r} names {[item.get('name') for item in items]}, each once; {accepted}")
    return tuple(_from_item(by_name[spec.name], spec) for spec in specs)


def _from_item(item: Mapping[str, Any], spec: TensorSpec) -> Array:
    where = f"input {spec.name!r}"
    datatype, shape = item.get("datatype"), item.get("shape")
    if datatype != DATATYPES[spec.dtype]:
        raise Rejection(UNPROCESSABLE, f"{where} has datatype {datatype!r}; accepted: {DATATYPES[spec.dtype]!r}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Rejection(UNPROCESSABLE, f"{where} has no shape; accepted: a list of sizes, for {spec}")
    if "data" not in item:
        raise Rejection(UNPROCESSABLE, f"{where} has no data; binary tensors are not accepted")
    data = item["data"] if isinstance(item["data"], list) else [item["data"]]
    array = from_lists(data, DTYPES[str(datatype)], where)
    if array.size != math.prod(shape):
        raise Rejection(UNPROCESSABLE, f"{where} has {array.size} values for shape {shape}")
    return array.reshape(shape)


def disagreement(wanted: Array, found: Array, atol: float, rtol: float) -> str:
    """How `found` differs from `wanted` by more than atol + rtol * |wanted|; "" when it does not."""
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        return f"{described(found)} instead of {described(wanted)}"
    want, got = wanted.astype(np.float64), found.astype(np.float64)
    if np.allclose(got, want, rtol, atol, equal_nan=True):
        return ""
    with np.errstate(invalid="ignore"):
        largest = np.nan_to_num(np.abs(got - want), nan=math.inf).max()
    return f"values differ by up to {largest:.3g} (atol {atol:g})"
