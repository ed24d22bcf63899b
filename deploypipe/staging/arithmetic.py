"""`//`, `%`, `**` and `divmod` of numbers that depend on data: Python's results, whatever the signs."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from deploypipe.staging.context import current
from deploypipe.staging.packing import number_tensor
from deploypipe.torch_compat.symbols import SYMBOLIC, statically_known_true

PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "//": operator.floordiv, "%": operator.mod, "**": operator.pow,
    "i//": operator.ifloordiv, "i%": operator.imod, "i**": operator.ipow,
}  # fmt: skip
UNROLLED = 16
"""Constant whole powers up to this one are written as products."""


def arithmetic(symbol: str, left: Any, right: Any) -> Any:
    plain = PLAIN[symbol]
    if isinstance(left, Tensor) or isinstance(right, Tensor) or not current().capturing:
        return plain(left, right)
    if not (isinstance(left, SYMBOLIC) or isinstance(right, SYMBOLIC)) or isinstance(left, str):
        return plain(left, right)
    left, right = whole(left), whole(right)
    floats = isinstance(left, (float, torch.SymFloat)) or isinstance(right, (float, torch.SymFloat))
    if symbol.endswith("**"):
        return _power(left, right, floats)
    if not floats:
        return plain(left, right)
    # Constants as operands, not as tensors: the ONNX exporter makes float32 of a constant tensor first.
    b: Any = number_tensor(right, torch.float64) if isinstance(right, SYMBOLIC) else right
    symbolic = isinstance(left, SYMBOLIC)
    a = number_tensor(left, torch.float64) if symbolic else torch.zeros_like(b) + left
    return (torch.floor_divide(a, b) if symbol.endswith("//") else torch.remainder(a, b)).item()


def divmod_(left: Any, right: Any) -> Any:
    return arithmetic("//", left, right), arithmetic("%", left, right)


def pow_(base: Any, exponent: Any, modulus: Any = None) -> Any:
    return arithmetic("**", base, exponent) if modulus is None else pow(base, exponent, modulus)


def whole(value: Any) -> Any:
    """True is 1 where numbers are computed."""
    return torch.sym_ite(value, 1, 0) if isinstance(value, torch.SymBool) else value


def _power(base: Any, exponent: Any, floats: bool) -> Any:
    if isinstance(exponent, int) and 0 <= exponent <= UNROLLED and not floats:
        product: Any = 1
        for _ in range(exponent):
            product = product * base
        return product
    # An integer to a negative power is a float in Python. Where the sign of the exponent is not known, the result is
    # a float on every path: as a factor it is the same, and where it is not (as a size or an index) it is refused.
    floats = floats or not statically_known_true(exponent >= 0)
    dtype = torch.float64 if floats else torch.int64
    return torch.pow(number_tensor(base, dtype), number_tensor(exponent, dtype)).item()


ADDITIVE = ("__add__", "__sub__", "__mul__", "__radd__", "__rsub__", "__rmul__")


@contextlib.contextmanager
def bools_as_numbers() -> Iterator[None]:
    """Let `count += a > b` work while capturing: torch asks a symbolic bool for its value before it adds it."""
    held = [(kind, name, kind.__dict__[name]) for kind in SYMBOLIC for name in ADDITIVE]
    for kind, name, method in held:
        setattr(kind, name, _on_bools(name) if kind is torch.SymBool else _with_bools(method))
    try:
        yield
    finally:
        for kind, name, method in held:
            setattr(kind, name, method)


def _on_bools(name: str) -> Callable[[Any, Any], Any]:
    operation: Any = getattr(operator, name.replace("__r", "__"))
    if name.startswith("__r"):
        return lambda own, other: operation(whole(other), whole(own))
    return lambda own, other: operation(whole(own), whole(other))


def _with_bools(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda own, other: method(own, whole(other))
