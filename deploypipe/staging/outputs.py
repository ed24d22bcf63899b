"""What a model returns, as the tensors that a program can return."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.lists import CountingList, GrowingList
from deploypipe.staging.packing import number_tensor
from deploypipe.staging.sequences import Sequence
from deploypipe.staging.templates import NUMBER_DTYPES, children, number_kind
from deploypipe.staging.undefined import Undefined
from deploypipe.torch_compat.dispatch import pytree


def tensors_only(value: Any) -> Any:
    """A model's outputs as tensors in plain containers: numbers become 0-dim tensors, dataclasses dicts."""
    if isinstance(value, Undefined):
        value.refuse()
    if isinstance(value, Tensor) or value is None or isinstance(value, str):
        return value
    kind = number_kind(value)
    if kind is not None:
        dtype = torch.get_default_dtype() if kind is float else NUMBER_DTYPES[kind]
        return number_tensor(value, dtype)
    if isinstance(value, (GrowingList, CountingList, Sequence)):
        raise Unsupported(
            "the output", "it holds a list whose length depends on data", "stack or concatenate it before returning"
        )
    found = children(value)
    if found is None:
        raise Unsupported(
            "the output", f"it holds a {type(value).__name__}", "return tensors, numbers and containers of them"
        )
    parts = [tensors_only(p) for p in found[1]]
    if dataclasses.is_dataclass(value):
        return dict(zip(found[0][1], parts, strict=True))
    if isinstance(value, dict):
        return dict(zip(value, parts, strict=True))
    if isinstance(value, tuple):
        return tuple(parts)
    return parts


def own_outputs(outputs: Any, inputs: tuple[Any, ...]) -> Any:
    """Inputs that are handed back become copies: some formats rename an input that is also an output."""
    given = {id(t) for t in inputs if isinstance(t, Tensor)}
    return pytree.tree_map(lambda t: t.clone() if id(t) in given else t, outputs)
