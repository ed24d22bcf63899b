"""Tensors ↔ JSON: the Open Inference Protocol v2's tensors, and plain nested lists. Travels inside archives.

JSON has no NaN or infinity: they are written, and accepted for floating-point tensors, as the strings "NaN",
"Infinity" and "-Infinity", as in Protocol Buffers' JSON.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..signature import Signature, TensorSpec, dtype_name
from .rejection import UNPROCESSABLE, Rejection

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
_DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def uncarried(signature: Signature) -> str:
    """Which tensor of a model no request or answer can carry; "" where there is none."""
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if spec.dtype not in DATATYPES:
                return f"{kind} {spec.name!r} is {spec.dtype}, which the Open Inference Protocol does not carry"
    return ""


def to_lists(tensor: Tensor) -> Any:
    """Nested lists (a number for a 0-d tensor) that JSON can hold."""
    values = tensor.tolist()
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        return _named(values)
    return values


def _named(values: Any) -> Any:
    if isinstance(values, list):
        return [_named(value) for value in values]
    if math.isfinite(values):
        return values
    return "NaN" if math.isnan(values) else "Infinity" if values > 0 else "-Infinity"


def from_lists(values: Any, dtype: str, where: str) -> Tensor:
    """Nested lists as a tensor of `dtype`. Rejection when they are ragged, of another kind, or out of range."""
    kind = getattr(torch, dtype)
    try:
        array = np.array(values)
        if kind.is_floating_point and array.dtype.kind == "U":
            array = np.array(_numbers(values))
    except (ValueError, OverflowError) as cause:
        raise Rejection(UNPROCESSABLE, f"{where} is ragged; nested lists of one shape are accepted") from cause
    allowed = "b" if kind == torch.bool else "iuf" if kind.is_floating_point else "iu"
    if array.size and array.dtype.kind not in allowed:
        raise Rejection(UNPROCESSABLE, f"{where} holds values that are not {dtype}")
    if kind == torch.bool or not array.size:
        return torch.from_numpy(array.astype(np.bool_)).to(kind)
    if kind.is_floating_point:
        wide = torch.from_numpy(array.astype(np.float64))
        tensor = wide.to(kind)
        if (tensor.isinf() & wide.isfinite()).any():
            raise Rejection(UNPROCESSABLE, f"{where} has values beyond {dtype}")
        return tensor
    limits = torch.iinfo(kind)
    if int(array.min()) < limits.min or int(array.max()) > limits.max:
        raise Rejection(UNPROCESSABLE, f"{where} has values outside {limits.min}..{limits.max}, which {dtype} holds")
    return torch.from_numpy(array.astype(dtype))


def _numbers(values: Any) -> Any:
    if isinstance(values, list):
        return [_numbers(value) for value in values]
    if isinstance(values, str):
        if values not in _NOT_FINITE:
            raise Rejection(UNPROCESSABLE, f"{values[:40]!r} is no number; of strings only {list(_NOT_FINITE)} are")
        return _NOT_FINITE[values]
    return values


def to_protocol(name: str, tensor: Tensor) -> dict[str, Any]:
    """`{"name", "shape", "datatype", "data"}` with the data flat, as the protocol writes it."""
    return {
        "name": name,
        "shape": list(tensor.shape),
        "datatype": DATATYPES[dtype_name(tensor.dtype)],
        "data": to_lists(tensor.reshape(-1)),
    }


def from_protocol(items: Any, specs: Sequence[TensorSpec], what: str = "inputs") -> tuple[Tensor, ...]:
    """The protocol's tensors in the order of `specs`; data flat or nested. Rejection where they do not fit."""
    accepted = f"accepted {what}: {', '.join(map(str, specs))}"
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise Rejection(UNPROCESSABLE, f"{what!r} must be a list of objects; {accepted}")
    by_name = {item.get("name"): item for item in items if isinstance(item.get("name"), str)}
    if len(by_name) != len(items) or set(by_name) != {spec.name for spec in specs}:
        raise Rejection(UNPROCESSABLE, f"{what!r} names {[item.get('name') for item in items]}, each once; {accepted}")
    return tuple(_from_item(by_name[spec.name], spec) for spec in specs)


def _from_item(item: Mapping[str, Any], spec: TensorSpec) -> Tensor:
    where = f"input {spec.name!r}"
    datatype, shape = item.get("datatype"), item.get("shape")
    if datatype != DATATYPES[spec.dtype]:
        raise Rejection(UNPROCESSABLE, f"{where} has datatype {datatype!r}; accepted: {DATATYPES[spec.dtype]!r}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Rejection(UNPROCESSABLE, f"{where} has no shape; accepted: a list of sizes, for {spec}")
    if "data" not in item:
        raise Rejection(UNPROCESSABLE, f"{where} has no data; binary tensors are not accepted")
    data = item["data"] if isinstance(item["data"], list) else [item["data"]]
    tensor = from_lists(data, _DTYPES[str(datatype)], where)
    if tensor.numel() != math.prod(shape):
        raise Rejection(UNPROCESSABLE, f"{where} has {tensor.numel()} values for shape {shape}")
    return tensor.reshape(shape)


def disagreement(wanted: Tensor, found: Tensor, atol: float, rtol: float) -> str:
    """How `found` differs from `wanted` by more than atol + rtol * |wanted|; "" when it does not."""
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        return f"{dtype_name(found.dtype)}{list(found.shape)} instead of {dtype_name(wanted.dtype)}{list(wanted.shape)}"
    want, got = wanted.to(torch.float64), found.to(torch.float64)
    if torch.allclose(got, want, atol=atol, rtol=rtol, equal_nan=True):
        return ""
    return f"values differ by up to {(got - want).abs().nan_to_num(math.inf).max().item():.3g} (atol {atol:g})"
