"""Python and torch functions that need another meaning for dynamic values."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.arithmetic import divmod_, pow_
from deploypipe.staging.branches import ifexp
from deploypipe.staging.lists import CountingList, GrowingList
from deploypipe.staging.logic import and_, or_
from deploypipe.staging.packing import number_of, number_tensor
from deploypipe.staging.sequences import (
    Sequence,
    enumerate_,
    range_,
    reversed_,
    row,
    sequence_of,
    zip_,
)
from deploypipe.staging.truth import bool_tensor, is_static, truth
from deploypipe.torch_compat.symbols import SYMBOLIC, statically_known_true


def len_(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape[0]
    if isinstance(value, (GrowingList, CountingList)):
        return value.count
    if isinstance(value, Sequence):
        return value.length
    return len(value)


def int_(value: Any = 0, *rest: Any) -> Any:
    if isinstance(value, Tensor):
        # int() truncates toward zero, and so does the conversion of a float tensor.
        return number_of(value.to(torch.int64))
    if isinstance(value, torch.SymBool):
        return torch.sym_ite(value, 1, 0)
    if isinstance(value, torch.SymFloat):
        return number_tensor(value, torch.float64).to(torch.int64).item()
    return value if isinstance(value, torch.SymInt) else int(value, *rest)


def float_(value: Any = 0.0) -> Any:
    if isinstance(value, Tensor):
        return number_of(value.to(torch.float64))
    if isinstance(value, torch.SymBool):
        return torch.sym_float(torch.sym_ite(value, 1, 0))
    return torch.sym_float(value) if isinstance(value, SYMBOLIC) else float(value)


def bool_(value: Any = False) -> Any:
    return truth(value)


def abs_(value: Any) -> Any:
    if isinstance(value, torch.SymInt):
        return torch.sym_max(value, -value)
    if isinstance(value, torch.SymFloat):
        return number_tensor(value, torch.float64).abs().item()
    return abs(value)


def _extreme(pick: Callable[..., Any], symbolic: Callable[..., Any], name: str) -> Callable[..., Any]:
    def choose(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], GrowingList):
            rows = args[0].rows()
            return getattr(rows, name)()
        if len(args) == 1 and isinstance(args[0], Tensor):
            if kwargs or args[0].dim() != 1:
                return pick(*args, **kwargs)
            return getattr(args[0], name)()
        values = list(args[0]) if len(args) == 1 else list(args)
        if not any(isinstance(v, (Tensor, *SYMBOLIC)) for v in values) or kwargs:
            if kwargs and any(isinstance(v, (Tensor, *SYMBOLIC)) for v in values):
                raise Unsupported(f"{name}(…, key=…)", "it compares values that depend on data", f"use torch.{name}")
            return pick(*args, **kwargs)
        result = values[0]
        for value in values[1:]:
            if isinstance(result, Tensor) or isinstance(value, Tensor):
                result = _pick_tensor(result, value, name)
            elif isinstance(result, (float, torch.SymFloat)) or isinstance(value, (float, torch.SymFloat)):
                result = _pick_float(result, value, name)
            else:
                result = symbolic(result, value)
        return result

    return choose


def _pick_float(a: Any, b: Any, name: str) -> Any:
    """For Python floats: the second operand where it compares strictly better, as Python does (also for NaN)."""
    x, y = number_tensor(a, torch.float64), number_tensor(b, torch.float64)
    return torch.where(y < x if name == "min" else y > x, y, x).item()


def _pick_tensor(a: Any, b: Any, name: str) -> Any:
    """Python keeps the first operand unless the second compares strictly better; both must have one type to carry."""
    better = b < a if name == "min" else b > a
    return ifexp(None, better, lambda: b, lambda: a)


def sum_(values: Any, start: Any = 0) -> Any:
    if isinstance(values, GrowingList):
        rows = values.rows()
        total = rows.sum(0, dtype=rows.dtype)
        return total if isinstance(start, int) and start == 0 else start + total
    if isinstance(values, Tensor):
        return values.sum(0, dtype=values.dtype) if not isinstance(values.shape[0], int) else sum(values, start)
    return sum(values, start)


def _quantified(method: str, join: Callable[..., Any], start: bool) -> Callable[[Any], Any]:
    """`any` and `all`: over a tensor's elements, or over Python values some of which may depend on data."""

    def ask(values: Any) -> Any:
        if isinstance(values, (Tensor, GrowingList)):
            return getattr(values if isinstance(values, Tensor) else values.rows(), method)()
        result: Any = start
        for value in values:
            result = join(partial(_itself, result), partial(_itself, value))
        return truth(result)

    return ask


def _itself(value: Any) -> Any:
    return value


def isinstance_(value: Any, kinds: Any) -> bool:
    flat = kinds if isinstance(kinds, tuple) else (kinds,)
    if isinstance(value, torch.SymInt):
        return int in flat or isinstance(value, kinds)
    if isinstance(value, torch.SymFloat):
        return float in flat or isinstance(value, kinds)
    if isinstance(value, torch.SymBool):
        return bool in flat or int in flat
    if isinstance(value, GrowingList):
        return list in flat
    return isinstance(value, kinds)


def round_(value: Any, digits: Any = None) -> Any:
    if isinstance(value, (torch.SymFloat, Tensor)):
        if digits is not None:
            return torch.round(number_tensor(value, torch.float64), decimals=digits).item()
        rounded = torch.round(number_tensor(value, torch.float64))
        return rounded.to(torch.int64).item() if isinstance(value, torch.SymFloat) else torch.round(value)
    return value if isinstance(value, torch.SymInt) else round(value, digits)


def list_(value: Any = ()) -> Any:
    if isinstance(value, GrowingList):
        return value.copy()
    if sequence_of(value) is not None:
        raise Unsupported("list(…)", "its length depends on data", "append to a list in a for loop")
    return list(value)


def sorted_(values: Any, **kwargs: Any) -> Any:
    if isinstance(values, (Tensor, GrowingList)) or any(isinstance(v, (Tensor, *SYMBOLIC)) for v in values):
        raise Unsupported("sorted(…)", "the order depends on data", "use torch.sort")
    return sorted(values, **kwargs)


def equal(a: Tensor, b: Tensor) -> Any:
    """`torch.equal` without leaving the graph."""
    if a.dim() != b.dim() or any(statically_known_true(x != y) for x, y in zip(a.shape, b.shape, strict=True)):
        return False
    if not all(statically_known_true(x == y) for x, y in zip(a.shape, b.shape, strict=True)):
        raise Unsupported("torch.equal", "whether the shapes agree depends on the inputs", "compare the shapes first")
    return (a == b).all()


def allclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    return torch.isclose(a, b, rtol, atol, equal_nan).all()


def unbind(value: Tensor, dim: int = 0) -> Any:
    if isinstance(value.shape[dim], int):
        return torch.unbind(value, dim)
    return Sequence(value.shape[dim], lambda i: row(value.movedim(dim, 0), i))


METHODS: dict[str, Callable[..., Any]] = {
    "equal": equal, "allclose": allclose, "unbind": unbind, "is_nonzero": lambda value: truth(value),
}  # fmt: skip


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: Any = False, **options: Any,
) -> Tensor:  # fmt: skip
    """`is_causal` may depend on a size, as in `is_causal=query.shape[2] > 1`: then it is in the mask."""
    causal = truth(is_causal)
    if not is_static(causal):
        rows, columns = (torch.arange(each.shape[-2], device=query.device) for each in (query, key))
        attn_mask, causal = (columns <= rows.unsqueeze(1)) | torch.logical_not(bool_tensor(causal)), False
    return functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, causal, **options)


def _math(name: str) -> Callable[..., Any]:
    """A function of `math` on Python floats that depend on data, in double precision as Python does."""
    plain = getattr(math, name)

    def apply(*args: Any) -> Any:
        if not any(isinstance(a, (Tensor, *SYMBOLIC)) for a in args):
            return plain(*args)
        numbers = [number_tensor(a, torch.float64).reshape(()) for a in args]
        if name == "log" and len(numbers) == 2:
            return (torch.log(numbers[0]) / torch.log(numbers[1])).item()
        function: Any = getattr(torch, {"fabs": "abs"}.get(name, name))
        result = function(*numbers)
        return (result.to(torch.int64) if name in ("floor", "ceil", "trunc") else result).item()

    return apply


LITERAL = 64  # numbers that are written into the graph one by one


def tensor_of(data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`torch.tensor(data)`, whose numbers may depend on data. Small ones are made by operations of the graph, since a
    constant tensor cannot live inside a branch or loop."""
    numbers, shape = _numbers(data)
    kinds = {type(n) for n in numbers}
    if (
        len(numbers) > LITERAL
        or not numbers
        or not all(isinstance(n, (int, float, Tensor, *SYMBOLIC)) for n in numbers)
    ):
        return torch.tensor(data, dtype=dtype, device=device)
    if dtype is None:
        if any(
            isinstance(n, (float, torch.SymFloat)) or (isinstance(n, Tensor) and n.is_floating_point()) for n in numbers
        ):
            dtype = torch.get_default_dtype()
        elif kinds <= {bool, torch.SymBool} or all(
            isinstance(n, bool) or (isinstance(n, Tensor) and n.dtype == torch.bool) for n in numbers
        ):
            dtype = torch.bool
        else:
            dtype = torch.int64
    parts = [
        number_tensor(n, dtype).reshape(()) if isinstance(n, (Tensor, *SYMBOLIC)) else torch.full((), n, dtype=dtype)
        for n in numbers
    ]
    made = parts[0] if not shape else torch.stack(parts).reshape(shape)
    return made.to(device) if device is not None else made


def _numbers(data: Any) -> tuple[list[Any], list[int]]:
    """The numbers in nested lists, and the shape of the nest."""
    if not isinstance(data, (list, tuple)):
        return [data], []
    parts = [_numbers(d) for d in data]
    inner = parts[0][1] if parts else []
    return [n for numbers, _ in parts for n in numbers], [len(data), *inner]


def stack_like(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch functions over a list of tensors, for lists whose length depends on data."""

    def apply(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(tensors, Sequence):
            raise Unsupported(
                f"torch.{function.__name__}", "its argument has a dynamic length", "append to a list first"
            )
        if not isinstance(tensors, GrowingList):
            if function in (torch.tensor, torch.as_tensor) and not isinstance(tensors, Tensor):
                return tensor_of(tensors, *args, **kwargs)
            return function(tensors, *args, **kwargs)
        rows = tensors.rows()
        if function is torch.tensor or function is torch.as_tensor:
            dtype = kwargs.get("dtype") or (torch.get_default_dtype() if rows.is_floating_point() else rows.dtype)
            return rows.to(dtype)
        dim = kwargs.get("dim", kwargs.get("axis", args[0] if args else 0))
        rank = rows.dim() - 1
        if function is torch.stack:
            return rows.movedim(0, dim if dim >= 0 else dim + rank + 1)
        if function is torch.hstack:
            dim = 0 if rank <= 1 else 1
        elif function is torch.vstack:
            if rank < 2:
                return rows.reshape(rows.shape[0], -1)
            dim = 0
        elif function not in (torch.cat, torch.concat, torch.concatenate):
            raise Unsupported(
                f"torch.{function.__name__}", "its list has a length that depends on data", "use torch.stack"
            )
        if rank == 0:
            raise Unsupported("torch.cat", "zero-dimensional tensors cannot be concatenated", "use torch.stack")
        dim = dim if dim >= 0 else dim + rank
        moved = rows.movedim(0, dim).clone(memory_format=torch.contiguous_format)
        shape = list(moved.shape)
        return moved.view([*shape[:dim], shape[dim] * shape[dim + 1], *shape[dim + 2 :]])

    return apply


REPLACED: dict[Any, Callable[..., Any]] = {
    builtins.len: len_, builtins.int: int_, builtins.float: float_, builtins.bool: bool_, builtins.abs: abs_,
    builtins.range: range_, builtins.enumerate: enumerate_, builtins.zip: zip_, builtins.reversed: reversed_,
    builtins.max: _extreme(max, torch.sym_max, "max"), builtins.min: _extreme(min, torch.sym_min, "min"),
    builtins.sum: sum_, builtins.any: _quantified("any", or_, False),
    builtins.all: _quantified("all", and_, True), builtins.isinstance: isinstance_,
    builtins.round: round_, builtins.divmod: divmod_, builtins.pow: pow_,
    builtins.list: list_, builtins.sorted: sorted_,
}  # fmt: skip
REPLACED |= {torch.equal: equal, torch.allclose: allclose, torch.unbind: unbind, torch.is_nonzero: truth,
             functional.scaled_dot_product_attention: attention}  # fmt: skip
for _function in (torch.stack, torch.cat, torch.concat, torch.concatenate, torch.hstack, torch.vstack, torch.dstack,
                  torch.column_stack, torch.tensor, torch.as_tensor):  # fmt: skip
    REPLACED[_function] = stack_like(_function)
for _name in ("sqrt", "exp", "log", "log2", "log10", "log1p", "expm1", "sin", "cos", "tan", "tanh", "sinh", "cosh",
              "floor", "ceil", "trunc", "pow", "fabs", "atan", "atan2"):  # fmt: skip
    REPLACED[getattr(math, _name)] = _math(_name)
