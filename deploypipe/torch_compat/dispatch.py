"""Watching every operator that runs, what an operator's schema says, and trees of arguments."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["OpOverload", "TorchDispatchMode", "decomposition_of", "is_mutable", "pytree", "schema_of", "storage_id"]


def schema_of(operator: Any) -> Any:
    """What an operator takes and returns, and what of it is written to or shared; None for what is no operator."""
    return getattr(operator, "_schema", None)


def is_mutable(operator: Any) -> bool:
    """Whether an operator writes to one of its arguments. False for what is no operator."""
    return bool(getattr(schema_of(operator), "is_mutable", False))


def decomposition_of(operator: Any) -> Callable[..., Any] | None:
    """The function that computes what an operator does by simpler operators; None where torch has none."""
    return decomposition_table.get(operator)


def storage_id(tensor: Tensor) -> int:
    """A number that two tensors share exactly when they share their memory, for as long as both live."""
    return int(tensor.untyped_storage()._cdata)
