"""What "the artifact returns what eager returns" means here: the same structure, dtypes, shapes and values."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Relative and absolute, for float32 on two runtimes."""


def difference(expected: Any, actual: Any, where: str = "") -> str | None:
    """Why `actual` is not `expected`, or None.

    A Python number equals a tensor of no dimensions and of its kind (an artifact has no Python numbers). A dataclass
    or a named tuple equals a dict of its fields, or a sequence in their order (an artifact has no classes). A tuple
    equals a list.
    """
    name = f"output{where}"
    if isinstance(expected, bool | int | float | Tensor):
        if not isinstance(actual, bool | int | float | Tensor):
            return f"{name}: a tensor expected, a {type(actual).__name__} returned"
        return _different_tensors(expected, actual, name)
    fields, other = _record(expected), _record(actual)
    if fields is not None:
        expected = fields if isinstance(actual, dict) or other is not None else list(fields.values())
    if other is not None:
        actual = other if isinstance(expected, dict) else list(other.values())
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return f"{name}: a dict expected, a {type(actual).__name__} returned"
        return _different_dicts(expected, actual, where)
    if not isinstance(actual, tuple | list):
        return f"{name}: a {type(expected).__name__} expected, a {type(actual).__name__} returned"
    if len(expected) != len(actual):
        return f"{name}: {len(expected)} values expected, {len(actual)} returned"
    found = (difference(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(expected, actual, strict=True)))
    return next((text for text in found if text), None)


def _record(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass or a named tuple; None for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    return None


def _different_dicts(expected: dict[Any, Any], actual: dict[Any, Any], where: str) -> str | None:
    if set(expected) != set(actual):
        return f"output{where}: keys {sorted(map(str, expected))} expected, {sorted(map(str, actual))} returned"
    found = (difference(expected[key], actual[key], f"{where}[{key!r}]") for key in expected)
    return next((text for text in found if text), None)


def _different_tensors(expected: Any, actual: Any, name: str) -> str | None:
    a, b = torch.as_tensor(expected), torch.as_tensor(actual)
    if a.shape != b.shape:
        return f"{name}: shape {tuple(a.shape)} expected, {tuple(b.shape)} returned"
    both = isinstance(expected, Tensor) and isinstance(actual, Tensor)
    if (a.dtype != b.dtype) if both else (_kind(a) != _kind(b)):
        return f"{name}: dtype {a.dtype} expected, {b.dtype} returned"
    if not torch.allclose(a.double(), b.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
        return f"{name}: values differ by up to {(a.double() - b.double()).abs().max():.3g}"
    return None


def _kind(value: Tensor) -> str:
    return "bool" if value.dtype == torch.bool else "float" if value.is_floating_point() else "int"
