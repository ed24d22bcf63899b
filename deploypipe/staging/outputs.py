"""What a model returns, as the tensors that a program can return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.lists import CountingList, GrowingList
from deploypipe.staging.packing import number_tensor
from deploypipe.staging.sequences import Sequence
from deploypipe.staging.templates import NUMBER_DTYPES, number_kind
from deploypipe.staging.undefined import Undefined
from deploypipe.torch_compat.dispatch import pytree
from deploypipe.torch_compat.nodes import open_node


def tensors_only(value: Any) -> Any:
    """A model's outputs as tensors in plain containers: numbers become 0-dim tensors, objects dicts of their fields;
    None and strings are left out."""
    if isinstance(value, Undefined):
        value.refuse()
    if isinstance(value, Tensor):
        return value
    kind = number_kind(value)
    if kind is not None:
        dtype = torch.get_default_dtype() if kind is float else NUMBER_DTYPES[kind]
        return number_tensor(value, dtype)
    if isinstance(value, (GrowingList, CountingList, Sequence)):
        raise Unsupported(
            "the output", "it holds a list whose length depends on data", "stack or concatenate it before returning"
        )
    container = open_node(value)
    if container is None:
        raise Unsupported(
            "the output", f"it holds a {type(value).__name__}", "return tensors, numbers and containers of them"
        )
    # None and strings are in the artifact's signature, not in its program.
    varying = [(key, item) for key, item in zip(container.keys, container.items, strict=True) if not _is_constant(item)]
    parts = [(key, tensors_only(item)) for key, item in varying]
    if container.kind in ("dict", "object"):
        return dict(parts)
    return (list if container.kind == "list" else tuple)(part for _, part in parts)


def _is_constant(value: Any) -> bool:
    return value is None or isinstance(value, str)


def own_outputs(outputs: Any, inputs: tuple[Any, ...]) -> Any:
    """Inputs that are handed back become copies: some formats rename an input that is also an output."""
    given = {id(t) for t in inputs if isinstance(t, Tensor)}
    return pytree.tree_map(lambda t: t.clone() if id(t) in given else t, outputs)
