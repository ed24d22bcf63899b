"""What two values of one name have in common, and how to carry them through a branch or a loop as tensors.

A `Template` says how a value travels: `Fixed` (the same Python object on every path: it does not travel), `TensorT`,
`NumberT` (a Python number that becomes a 0-dim tensor), `TreeT` (a container of these), `GrowT` (a list whose length
varies), `LongerT` (a tensor that a loop makes longer) or `Poison` (nothing in common: using the name later is refused).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploypipe.staging.lists import CountingList, GrowingList
from deploypipe.staging.undefined import Undefined
from deploypipe.torch_compat.symbols import SYMBOLIC, same_expression, statically_known_true

Dim = Any  # int or SymInt
NUMBER_DTYPES = {int: torch.int64, float: torch.float64, bool: torch.bool}


@dataclass(frozen=True)
class Fixed:
    value: Any


@dataclass(frozen=True)
class Poison:
    why: str
    remedy: str = ""


@dataclass(frozen=True)
class TensorT:
    dtype: torch.dtype
    dims: tuple[Dim, ...]  # None where the size depends on the path
    device: torch.device


@dataclass(frozen=True)
class NumberT:
    kind: type


@dataclass(frozen=True)
class TreeT:
    children: tuple[Template, ...]
    rebuild: Callable[[list[Any]], Any]
    shape: tuple[Any, ...]


@dataclass(frozen=True)
class GrowT:
    element: Template
    capacity: Dim
    skeleton: Any
    """One element, as an example of the structure of all."""
    provisional: bool = False
    """Whether the capacity is not known yet."""


@dataclass(frozen=True)
class LongerT:
    """A tensor that each iteration of a loop may make longer along one axis: a buffer with room, and the length."""

    dtype: torch.dtype
    dims: tuple[Dim, ...]
    """Of the buffer: along `axis` its room."""
    device: torch.device
    axis: int
    provisional: bool = True
    """Whether the room is not known yet."""
    least: int = 0
    """The length is never less."""
    twin: int | None = None
    """The first of the loop's variables that always has the same length, where there is one."""


Template = Fixed | Poison | TensorT | NumberT | TreeT | GrowT | LongerT


def number_kind(value: Any) -> type | None:
    if isinstance(value, (bool, torch.SymBool)):
        return bool
    if isinstance(value, (int, torch.SymInt)):
        return int
    if isinstance(value, (float, torch.SymFloat)):
        return float
    return None


def children(value: Any) -> tuple[tuple[Any, ...], list[Any], Callable[[list[Any]], Any]] | None:
    """A container's shape (what must agree), its parts, and how to build one from parts; `None` for a leaf."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return (type(value), len(value)), list(value), lambda parts: type(value)(*parts)
    if isinstance(value, tuple):
        return (tuple, len(value)), list(value), tuple
    if type(value) is list:
        return (list, len(value)), list(value), list
    if isinstance(value, dict):
        keys = tuple(value)
        return (type(value), keys), list(value.values()), lambda parts: _dict_like(value, keys, parts)
    if isinstance(value, CountingList):
        known = [value.count] if value.last is None else [value.count, value.last]
        return (CountingList, len(known)), known, lambda parts: CountingList(*parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(f.name for f in dataclasses.fields(value))
        return (
            (type(value), names),
            [getattr(value, n) for n in names],
            lambda parts: _dataclass_like(value, names, parts),
        )
    return None


def _dict_like(value: Any, keys: tuple[Any, ...], parts: list[Any]) -> Any:
    return (
        type(value)(zip(keys, parts, strict=True)) if type(value) is not dict else dict(zip(keys, parts, strict=True))
    )


def _dataclass_like(value: Any, names: tuple[str, ...], parts: list[Any]) -> Any:
    made = object.__new__(type(value))
    for key, part in [*vars(value).items(), *zip(names, parts, strict=True)]:
        object.__setattr__(made, key, part)
    return made


def fresh_containers(value: Any) -> Any:
    """The same leaves in new containers, so that a block cannot change the containers of another."""
    if isinstance(value, GrowingList):
        return value.copy()
    found = children(value)
    if found is None or not found[1]:
        return list(value) if type(value) is list else value
    parts = [fresh_containers(p) for p in found[1]]
    if isinstance(value, tuple) and all(a is b for a, b in zip(parts, found[1], strict=True)):
        return value
    return found[2](parts)


def same_constant(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, Undefined):
        return False
    if isinstance(a, SYMBOLIC):
        return same_expression(a, b)
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    if isinstance(a, (int, bool, str, bytes, torch.dtype, torch.device, range, slice)):
        return bool(a == b)
    return callable(a) and getattr(a, "__self__", None) is not None and bool(a == b)


def template_of(value: Any) -> Template:
    """How to carry a value that has no counterpart."""
    if isinstance(value, Tensor):
        return TensorT(value.dtype, tuple(value.shape), value.device)
    kind = number_kind(value)
    if kind is not None:
        return NumberT(kind)
    if isinstance(value, GrowingList):
        return GrowT(template_of(value.skeleton), value.capacity, value.skeleton)
    found = children(value)
    if found is not None:
        return TreeT(tuple(template_of(p) for p in found[1]), found[2], found[0])
    return Fixed(value)


def unify(a: Any, b: Any, known: Template | None = None, *, loop: bool = False) -> Template:
    """The template that carries both `a` and `b`. `known` is what `a` was made from; in a loop `a` comes first."""
    if same_constant(a, b):
        return known if known is not None else Fixed(a)
    if isinstance(a, Undefined) or isinstance(b, Undefined):
        return _with_undefined(a, b)
    if isinstance(a, GrowingList) or isinstance(b, GrowingList):
        return _growing(a, b)
    if isinstance(a, Tensor) or isinstance(b, Tensor) or (number_kind(a) and number_kind(b)):
        return _numeric(a, b, loop)
    first, second = children(a), children(b)
    if isinstance(a, dict) and isinstance(b, dict) and type(a) is type(b) and set(a) == set(b):
        b = type(b)((k, b[k]) for k in a)  # the order of keys says nothing
        second = children(b)
    if first is not None and second is not None:
        if first[0] == second[0]:
            inner = known.children if isinstance(known, TreeT) else [None] * len(first[1])
            parts = tuple(unify(x, y, k, loop=loop) for x, y, k in zip(first[1], second[1], inner, strict=True))
            return TreeT(parts, first[2], first[0])
        if type(a) is list and type(b) is list:
            return _growing(a, b)
        return Poison(
            f"holds containers of different structure on different paths ({_structure(a)} and {_structure(b)})",
            "give every path the same keys and lengths",
        )
    if a is None or b is None:
        other = b if a is None else a
        return Poison(
            f"is None on one path and {type(other).__name__} on another",
            "start it with a tensor of the shape and dtype that it gets later",
        )
    return Poison(
        f"is a {type(a).__name__} on one path and a {type(b).__name__} on another"
        if type(a) is not type(b)
        else f"is a different {type(a).__name__} on different paths, and only tensors and numbers can depend on data",
        "let both paths assign tensors of the same shape and dtype",
    )


def _structure(value: Any) -> str:
    found = children(value)
    return (
        f"{found[0][0].__name__} {list(found[0][1]) if isinstance(found[0][1], tuple) else found[0][1]}"
        if found
        else ""
    )


def _with_undefined(a: Any, b: Any) -> Template:
    undefined, value = (a, b) if isinstance(a, Undefined) else (b, a)
    if isinstance(value, Undefined):
        return Fixed(undefined if undefined.__dict__["why"] else value)
    if undefined.__dict__["why"]:
        return Poison(undefined.__dict__["why"], undefined.__dict__["remedy"])
    # Eager fails where the name is read without having been assigned, so on every path where eager returns,
    # what stands in for the missing value is never looked at.
    return template_of(value)


def _numeric(a: Any, b: Any, loop: bool) -> Template:
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        kinds = {number_kind(a), number_kind(b)}
        if len(kinds) == 1:
            return NumberT(kinds.pop())  # type: ignore[arg-type]
        if kinds == {int, float}:
            return NumberT(float)
        return Poison("is a bool on one path and a number on another", "use one type on every path")
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        number, tensor = (b, a) if isinstance(a, Tensor) else (a, b)
        kind = number_kind(number)
        if kind is None:
            return Poison(
                f"is a tensor on one path and {'None' if number is None else 'a ' + type(number).__name__} on another",
                "start it with a tensor of the shape and dtype that it gets later",
            )
        example = {int: 1, float: 1.0, bool: True}[kind]
        if torch.result_type(tensor, example) != tensor.dtype or (kind is bool) != (tensor.dtype == torch.bool):
            return Poison(
                f"is a Python {kind.__name__} on one path and a {tensor.dtype} tensor on another",
                "start it with a tensor of the dtype that it gets later",
            )
        if tensor.dim() > 0:
            return Poison(
                f"is a Python {kind.__name__} on one path and a tensor of shape {list(tensor.shape)} on another",
                "start it with torch.zeros of that shape",
            )
        if kind is bool:
            return NumberT(bool)
        return TensorT(tensor.dtype, (), tensor.device)
    if a.dtype != b.dtype:
        return Poison(f"has dtype {a.dtype} on one path and {b.dtype} on another", "convert both paths to one dtype")
    if a.device != b.device:
        return Poison(f"is on {a.device} on one path and on {b.device} on another", "move both to one device")
    if a.dim() != b.dim():
        return shapes_differ(a, b)
    dims: list[Dim] = []
    differing: list[int] = []
    for x, y in zip(a.shape, b.shape, strict=True):
        if statically_known_true(x == y):
            dims.append(x)
        elif not loop and (isinstance(x, torch.SymInt) or isinstance(y, torch.SymInt)):
            dims.append(None)
        else:
            differing.append(len(dims))
            dims.append(None)
    if len(differing) == 1 and loop:
        return LongerT(a.dtype, tuple(dims), a.device, differing[0])
    return shapes_differ(a, b, loop) if differing else TensorT(a.dtype, tuple(dims), a.device)


def shapes_differ(a: Tensor, b: Tensor, loop: bool = False) -> Poison:
    where = "before the loop and" if loop else "on one path and"
    return Poison(
        f"has shape {list(a.shape)} {where} {list(b.shape)} {'after an iteration' if loop else 'on another'}",
        "pad or reshape so that the shape stays the same"
        + (", or collect the pieces in a list and concatenate after the loop" if loop else ""),
    )


def _growing(a: Any, b: Any) -> Template:
    """Lists of different lengths: one list with room for the longer."""
    if not (isinstance(a, (list, GrowingList)) and isinstance(b, (list, GrowingList))):
        return Poison("is a list on one path and something else on another", "use a list on every path")
    elements = [e for side in (a, b) for e in ([side.skeleton] if isinstance(side, GrowingList) else side)]
    if not elements:
        return Poison("is an empty list of unknown contents", "start the list with its first element")
    element = template_of(elements[0])
    for other in elements[1:]:
        element = unify_templates(element, elements[0], other)
    if not carriable(element):
        why = element.why if isinstance(element, Poison) else "its elements are not tensors or numbers"
        return Poison(
            f"is a list of varying length whose elements differ: {why}", "append tensors of one shape and dtype"
        )
    capacities = [s.capacity if isinstance(s, GrowingList) else len(s) for s in (a, b)]
    return GrowT(element, larger(*capacities), elements[0])


def larger(a: Dim, b: Dim) -> Dim:
    if statically_known_true(a >= b):
        return a
    return b if statically_known_true(b >= a) else torch.sym_max(a, b)


def unify_templates(known: Template, a: Any, b: Any) -> Template:
    joined = unify(a, b, known)
    return joined if not isinstance(joined, Fixed) else known


def carriable(template: Template) -> bool:
    if isinstance(template, TreeT):
        return all(carriable(c) for c in template.children)
    if isinstance(template, TensorT):
        return all(d is not None for d in template.dims)
    return isinstance(template, NumberT)


def flat_count(template: Template) -> int:
    """How many tensors carry a template."""
    if isinstance(template, TreeT):
        return sum(flat_count(c) for c in template.children)
    if isinstance(template, GrowT):
        return flat_count(template.element) + 1
    if isinstance(template, LongerT):
        return 2
    return 1 if isinstance(template, (TensorT, NumberT)) else 0


def same_template(a: Template, b: Template) -> bool:
    """Whether a further iteration would learn nothing new."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Fixed) and isinstance(b, Fixed):
        both_undefined = isinstance(a.value, Undefined) and isinstance(b.value, Undefined)
        return both_undefined or same_constant(a.value, b.value)
    if isinstance(a, TreeT) and isinstance(b, TreeT):
        return a.shape == b.shape and all(same_template(x, y) for x, y in zip(a.children, b.children, strict=True))
    if isinstance(a, TensorT) and isinstance(b, TensorT):
        return a.dtype == b.dtype and len(a.dims) == len(b.dims)
    if isinstance(a, GrowT) and isinstance(b, GrowT):
        return a.provisional == b.provisional and same_template(a.element, b.element)
    if isinstance(a, LongerT) and isinstance(b, LongerT):
        return (a.dtype, a.axis, a.provisional, a.twin) == (b.dtype, b.axis, b.provisional, b.twin)
    return a == b or isinstance(a, Poison)
