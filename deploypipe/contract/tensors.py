"""Arrays as bytes in JSON documents. This module travels inside archives."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .signature import dtype_name

Array = NDArray[Any]
"""A NumPy array of any dtype; bfloat16 and the eight-bit floats are ml_dtypes' ones."""


@dataclass(frozen=True)
class Sample:
    """Inputs, and the flat outputs that the eager module gave for them."""

    inputs: tuple[Array, ...] = field(compare=False)  # arrays do not compare to one bool
    outputs: tuple[Array, ...] = field(compare=False)


def as_dtype(name: str) -> np.dtype[Any]:
    """`numpy.dtype(name)`, and ml_dtypes' for what NumPy lacks. ValueError for a name that neither knows."""
    try:
        return np.dtype(name)
    except TypeError:
        pass
    import ml_dtypes  # imported only where such a dtype occurs

    try:
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype
    except (AttributeError, TypeError) as cause:
        raise ValueError(f"there is no dtype {name!r}") from cause


def encode(array: Array) -> dict[str, Any]:
    """`{"dtype", "shape", "base64"}`."""
    raw = np.ascontiguousarray(array).tobytes()
    return {
        "dtype": dtype_name(array.dtype),
        "shape": list(array.shape),
        "base64": base64.b64encode(raw).decode("ascii"),
    }


def decode(document: Any) -> Array:
    """The inverse of `encode`. ValueError for what `encode` cannot have written."""
    if not isinstance(document, Mapping) or not all(key in document for key in ("dtype", "shape", "base64")):
        raise ValueError("a tensor needs 'dtype', 'shape' and 'base64'")
    dtype, shape, text = (document[key] for key in ("dtype", "shape", "base64"))
    if not (isinstance(dtype, str) and isinstance(text, str) and isinstance(shape, list)):
        raise ValueError("a tensor's 'dtype' and 'base64' are strings, its 'shape' is a list")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"a tensor's shape holds sizes, not {shape}")
    # A copy, which may be written to: PyTorch warns of arrays that may not.
    return np.frombuffer(bytearray(base64.b64decode(text, validate=True)), as_dtype(dtype)).reshape(shape)
