"""Arrays, and their bytes as text. This module travels inside archives."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""A NumPy array of any dtype; bfloat16 and the eight-bit floats are ml_dtypes' ones."""


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


def to_base64(array: Array) -> str:
    """The array's bytes, row by row, as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def from_base64(dtype: str, shape: tuple[int, ...], text: str) -> Array:
    """The inverse of `to_base64`. ValueError for what it cannot have written."""
    if any(size < 0 for size in shape):
        raise ValueError(f"a tensor's shape holds sizes, not {list(shape)}")
    # A copy, which may be written to: PyTorch warns of arrays that may not.
    return np.frombuffer(bytearray(base64.b64decode(text, validate=True)), as_dtype(dtype)).reshape(shape)
