"""What "the artifact returns what eager returns" means here: the same leaves, in order, within float32 rounding."""

import dataclasses
from typing import Any

import torch
from torch import Tensor


def leaves(value: Any) -> list[tuple[str, Tensor]]:
    """Every tensor in an output with its place. Python numbers count as tensors; dict entries go by key.

    A dataclass or a named tuple counts as a dict of its fields or as a tuple alike: artifacts have no classes.
    """
    if isinstance(value, Tensor):
        return [("", value)]
    if isinstance(value, bool | int | float):
        return [("", torch.tensor(value))]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        items = sorted(value.items())
    elif isinstance(value, tuple | list):
        items = list(enumerate(value))
    else:
        raise TypeError(f"a {type(value).__name__} in an output")
    return [(f"[{key!r}]{place}", leaf) for key, item in items for place, leaf in leaves(item)]


def difference(expected: Any, actual: Any, *, by_position: bool = False) -> str | None:
    """Why `actual` is not `expected`, or None. Compares the number of leaves, dtypes, shapes, then values.

    `by_position`: the format returns a flat list (ONNX), so places are not compared; dict entries are in key order
    in neither list, so the caller passes what its format promises.
    """
    want, have = leaves(expected), leaves(actual)
    if len(want) != len(have):
        return f"{len(want)} outputs expected, {len(have)} returned"
    for (place, a), (other, b) in zip(want, have, strict=True):
        if not by_position and place != other:
            return f"output {place or 'value'} expected, {other or 'value'} returned"
        where = f"output{place}: " if place else ""
        if a.shape != b.shape:
            return f"{where}shape {tuple(a.shape)} expected, {tuple(b.shape)} returned"
        if a.dtype != b.dtype:
            return f"{where}dtype {a.dtype} expected, {b.dtype} returned"
        if not torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-4, equal_nan=True):
            return f"{where}values differ by up to {(a.double() - b.double()).abs().max():.3g}"
    return None
