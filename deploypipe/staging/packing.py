"""Values to tensors and back, by template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import current
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.templates import (
    NUMBER_DTYPES,
    Fixed,
    GrowT,
    LongerT,
    NumberT,
    Poison,
    Template,
    TensorT,
    TreeT,
    children,
    template_of,
    unify,
)
from deploypipe.staging.undefined import Undefined
from deploypipe.torch_compat.symbols import sole_symbol, statically_known_true, symbols_in
from deploypipe.torch_compat.tracing import remember_number, remembered_number

LENGTH = TensorT(torch.int64, (), torch.device("cpu"))


def pack(template: Template, value: Any) -> list[Tensor]:
    """The tensors that carry `value`."""
    match template:
        case Fixed() | Poison():
            return []
        case TensorT():
            if isinstance(value, Undefined):
                return [
                    torch.zeros(
                        [0 if d is None else d for d in template.dims], dtype=template.dtype, device=template.device
                    )
                ]
            if not isinstance(value, Tensor):
                value = number_tensor(value, template.dtype)
                value = value if value.device == template.device else value.to(template.device)
            return [value]
        case NumberT():
            dtype = NUMBER_DTYPES[template.kind]
            if isinstance(value, Undefined):
                return [torch.zeros((), dtype=dtype)]
            if isinstance(value, Tensor):
                return [value.to(dtype)]
            return [number_tensor(value, dtype)]
        case TreeT():
            if isinstance(value, dict) and isinstance(template.shape[1], tuple):
                value = {k: value[k] for k in template.shape[1]}
            found = children(value)
            parts = found[1] if found is not None else [value] * len(template.children)
            return [t for child, part in zip(template.children, parts, strict=True) for t in pack(child, part)]
        case GrowT():
            grown = grow(template, value)
            return [*grown.buffers, number_tensor(grown.count, torch.int64)]
        case LongerT():
            return _with_room(template, value)


def unpack(template: Template, tensors: list[Tensor], name: str) -> Any:
    """The value carried by tensors, which are taken from the front of the list."""
    match template:
        case Fixed():
            return template.value
        case Poison():
            return Undefined(name, template.why, template.remedy, current().where)
        case TensorT():
            return tensors.pop(0)
        case NumberT():
            value = tensors.pop(0)
            return value if template.kind is bool else number_of(value)
        case TreeT():
            return template.rebuild([unpack(c, tensors, name) for c in template.children])
        case GrowT():
            buffers = [tensors.pop(0) for _ in tensors_of(template.element)]
            count = number_of(tensors.pop(0))
            torch._check(count >= 0)
            return GrowingList(buffers, count, buffers[0].shape[0], SkeletonForm(template.skeleton))
        case LongerT():
            buffer, length = tensors.pop(0), number_of(tensors.pop(0))
            torch._check(length >= template.least)
            torch._check(length <= buffer.shape[template.axis])
            return buffer.narrow(template.axis, 0, length).clone(memory_format=torch.contiguous_format)


def tensors_of(template: Template) -> list[TensorT]:
    """The tensors of a template, in the order of `pack`."""
    match template:
        case TensorT():
            return [template]
        case NumberT():
            return [TensorT(NUMBER_DTYPES[template.kind], (), torch.device("cpu"))]
        case TreeT():
            return [leaf for child in template.children for leaf in tensors_of(child)]
        case GrowT():
            inner = [TensorT(t.dtype, (template.capacity, *t.dims), t.device) for t in tensors_of(template.element)]
            return [*inner, TensorT(torch.int64, (), torch.device("cpu"))]
        case LongerT():
            return [TensorT(template.dtype, template.dims, template.device), LENGTH]
    return []


def _with_room(template: LongerT, value: Any) -> list[Tensor]:
    """The buffer and the length. Where the loop runs more often than was known, eager's shape would not fit into the
    buffer, and no runtime makes a tensor of a negative size."""
    axis = template.axis
    if isinstance(value, Undefined):
        empty = torch.zeros(template.dims, dtype=template.dtype, device=template.device)
        return [empty, torch.zeros((), dtype=torch.int64)]
    length = value.shape[axis]
    room = template.dims[axis] - length
    torch._check(room >= 0)
    rest = [*value.shape[:axis], room, *value.shape[axis + 1 :]]
    buffer = torch.cat([value, torch.zeros(rest, dtype=template.dtype, device=template.device)], axis)
    return [buffer, number_tensor(length, torch.int64)]


def number_of(tensor: Tensor) -> Any:
    """`tensor.item()`. A view at an offset that depends on data is copied first, as the symbolic shapes need it.

    Torch remembers the symbol of a tensor's number; one from outside of the branch or loop that is being staged is not
    known to its graph, so the number is read anew.
    """
    flat = tensor.reshape(()) if tensor.dim() else tensor
    remembered = remembered_number(flat)
    if isinstance(remembered, torch.SymInt) and symbols_in(remembered) & current().symbols_outside:
        anew = flat.clone().item()
        remember_number(flat, anew)
        current().read_anew[sole_symbol(anew)] = remembered
        return anew
    return (flat.clone() if isinstance(flat.storage_offset(), torch.SymInt) else flat).item()


def number_tensor(value: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(value, Tensor):
        return value if value.dtype == dtype else value.to(dtype)
    if isinstance(value, torch.SymBool):
        # There is no tensor of a symbolic bool; 0 and 1 take its place on the way.
        return torch.scalar_tensor(torch.sym_ite(value, 1, 0), dtype=torch.int64).to(dtype)
    return torch.scalar_tensor(value, dtype=dtype)


def grow(template: GrowT, value: Any) -> GrowingList:
    """A list as buffers with the template's capacity."""
    leaves = tensors_of(template.element)
    if isinstance(value, GrowingList):
        grown = value.copy()
        room = template.capacity - grown.capacity
        if not statically_known_true(room == 0):
            grown.buffers = [
                torch.cat([b, torch.zeros([room, *t.dims], dtype=t.dtype, device=t.device)])
                for b, t in zip(grown.buffers, leaves, strict=True)
            ]
            grown.capacity = template.capacity
        return grown
    buffers = [torch.zeros([template.capacity, *t.dims], dtype=t.dtype, device=t.device) for t in leaves]
    for position, element in enumerate(value):
        at = torch.full((), position, dtype=torch.int64)
        buffers = [torch.index_put(b, (at,), p) for b, p in zip(buffers, pack(template.element, element), strict=True)]
    return GrowingList(buffers, len(value), template.capacity, SkeletonForm(template.skeleton))


@dataclass(frozen=True)
class SkeletonForm:
    """How an element of a list travels, known by one of its elements."""

    skeleton: Any

    def to_tensors(self, value: Any) -> list[Tensor]:
        template = unify(self.skeleton, value)
        if isinstance(template, Fixed):
            template = template_of(value)
        if isinstance(template, Poison):
            raise Unsupported("list.append", f"the element {template.why}", "append tensors of one shape and dtype")
        return pack(template, value)

    def from_tensors(self, tensors: list[Tensor]) -> Any:
        return unpack(template_of(self.skeleton), tensors, "element")
