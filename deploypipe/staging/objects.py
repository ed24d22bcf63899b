"""Changes of objects: of tensors and containers that were made during the call, and of none that outlives it. What is
written to attributes of modules is judged when all of the call is traced (see `attributes`)."""

from __future__ import annotations

import operator
import sys
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.arithmetic import arithmetic
from deploypipe.staging.calls import callee, check_change
from deploypipe.staging.context import current
from deploypipe.staging.indexing import tensor_index
from deploypipe.staging.lists import CountingList, GrowingList
from deploypipe.staging.packing import number_tensor
from deploypipe.staging.sequences import is_symbolic
from deploypipe.staging.templates import number_kind

IN_PLACE = {"ifloordiv": "i//", "imod": "i%", "ipow": "i**"}


def setitem(value: Any, index: Any, item: Any) -> Any:
    check_change(value, "an item assignment")
    if current().capturing and isinstance(value, list) and isinstance(index, (Tensor, torch.SymInt)):
        raise Unsupported(
            "an item assignment", "the index into a list depends on data", "use a tensor instead of a list"
        )
    if isinstance(value, Tensor) and current().capturing:
        index = tensor_index(index)
        if number_kind(item) is not None:
            item = number_tensor(item, value.dtype) if is_symbolic(item) else torch.full((), item, dtype=value.dtype)
    value[index] = item
    return value


def setattr_(value: Any, name: str, item: Any) -> Any:
    context = current()
    if not isinstance(value, (Tensor, nn.Module)) and id(value) not in context.created:
        raise Unsupported(
            f"assignment to attribute `{name}` of a {type(value).__name__}",
            "the object outlives the call and the artifact cannot change it",
            "build a new object inside forward",
        )
    if context.capturing and context.staged:
        raise Unsupported(
            f"assignment to attribute `{name}` of {type(value).__name__}",
            "it happens inside a branch or loop that depends on data",
            "use a local variable",
        )
    if isinstance(value, nn.Module):
        frame = sys._getframe(1)
        context.written[name] = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    setattr(value, name, item)
    return value


def mutate(value: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    if isinstance(value, (list, dict, set, GrowingList, CountingList)):
        check_change(value, f"{type(value).__name__}.{method}")
        getattr(value, method)(*args, **kwargs)
        return value
    callee(getattr(value, method))(*args, **kwargs)
    return value


def pop(value: Any, *args: Any) -> tuple[Any, Any]:
    return value, value.pop(*args)


def inplace(symbol: str, left: Any, right: Any) -> Any:
    return arithmetic(IN_PLACE[symbol], left, right) if symbol in IN_PLACE else getattr(operator, symbol)(left, right)
