"""Calls: the author's functions are rewritten when they are called, the outside world is refused, the rest runs."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.compiler.helper_names import MUTATORS
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging import builtins
from deploypipe.staging.context import current
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.outside import refuse_outside
from deploypipe.staging.packing import SkeletonForm

OURS = ("deploypipe.compiler", "deploypipe.staging")


def callee(function: Any) -> Callable[..., Any]:
    """What to call instead of `function`."""
    context = current()
    if context.capturing:
        replaced = _replaced(function)
        if replaced is not None:
            return replaced
    refuse_outside(function)
    return resolve(function)


def resolve(function: Any) -> Callable[..., Any]:
    """The rewritten form of a user's function; anything else unchanged."""
    if isinstance(function, functools.partial):
        return functools.partial(resolve(function.func), *function.args, **function.keywords)
    if isinstance(function, types.MethodType):
        inner = resolve(function.__func__)
        return function if inner is function.__func__ else types.MethodType(inner, function.__self__)
    if isinstance(function, types.FunctionType):
        return _resolve_function(function)
    if isinstance(function, type):
        return _constructor(function)
    if isinstance(function, (nn.Module, types.BuiltinFunctionType, types.MethodWrapperType)):
        return function
    own = inspect.getattr_static(type(function), "__call__", None)
    if isinstance(own, types.FunctionType) and is_users(own):
        return types.MethodType(resolve(own), function)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and isinstance(wrapped, types.FunctionType) and is_users(wrapped):
        return resolve(wrapped)
    return function  # type: ignore[no-any-return]


def _resolve_function(function: types.FunctionType) -> Callable[..., Any]:
    inner = getattr(function, "__wrapped__", None)
    if not is_users(function) and isinstance(inner, types.FunctionType) and is_users(inner):
        return resolve(inner)  # decorators of torch, such as no_grad: capture is inference already
    resolver = current().resolver
    if resolver is None or not is_users(function):
        return function
    found = resolver(function)
    if found is function and isinstance(inner, types.FunctionType) and (made := resolve(inner)) is not inner:
        return _decorating(function, inner, made)
    return found


def _decorating(wrapper: types.FunctionType, inner: types.FunctionType, made: Callable[..., Any]) -> Callable[..., Any]:
    """What a decorator made of `inner`, as it would have made it of another function."""
    cells = tuple(types.CellType(made) if _held(cell) is inner else cell for cell in wrapper.__closure__ or ())
    copy = types.FunctionType(wrapper.__code__, wrapper.__globals__, wrapper.__name__, wrapper.__defaults__, cells)
    copy.__kwdefaults__ = wrapper.__kwdefaults__
    return functools.update_wrapper(copy, made)


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _constructor(cls: type) -> Callable[..., Any]:
    if cls.__module__ == "builtins":
        return cls
    context = current()

    def make(*args: Any, **kwargs: Any) -> Any:
        if issubclass(cls, nn.Module):
            raise Unsupported(f"{cls.__name__}(…)", "a module is created during forward", "create it in __init__")
        return context.made(cls(*args, **kwargs))

    return make if not issubclass(cls, (Tensor, BaseException)) and is_users_class(cls) else cls


def is_users(function: types.FunctionType) -> bool:
    """Whether a function is the author's: not torch's, the standard library's, or ours."""
    module = function.__module__ or ""
    root = module.partition(".")[0]
    if function.__code__.co_filename.startswith("<frozen") or module.startswith(OURS):
        return False
    if root in ("torch", "builtins", "numpy", "typing", "onnxruntime"):
        return False
    return root not in sys.stdlib_module_names or root in ("__main__",)


def is_users_class(cls: type) -> bool:
    root = (cls.__module__ or "").partition(".")[0]
    return root not in ("torch", "builtins", "numpy") and root not in sys.stdlib_module_names


def _replaced(function: Any) -> Callable[..., Any] | None:
    try:
        if function in builtins.REPLACED and not isinstance(function, (Tensor, nn.Module)):
            return builtins.REPLACED[function]
    except TypeError:
        pass
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    if isinstance(owner, Tensor):
        if name == "item":
            if owner.dtype == torch.bool:
                return lambda: owner.reshape(())
            return lambda: (builtins.float_ if owner.is_floating_point() else builtins.int_)(owner)
        if name == "tolist":
            return lambda: _to_list(owner)
        if name in builtins.METHODS:
            return functools.partial(builtins.METHODS[name], owner)
        if name in ("numpy", "__array__"):
            raise Unsupported(f"Tensor.{name}()", "the value leaves torch", "stay with torch operations")
        if name == "data_ptr":
            raise Unsupported("Tensor.data_ptr()", "an address is not a value", "")
        if name == "__len__":
            return lambda: owner.shape[0]
    if function is torch.is_grad_enabled:
        raise Unsupported(
            "torch.is_grad_enabled()", "an artifact only infers, so it would be frozen", "use self.training"
        )
    if isinstance(owner, (list, dict, set)) and name in MUTATORS:
        check_change(owner, f"{type(owner).__name__}.{name}")
    return None


def _to_list(value: Tensor) -> Any:
    if value.dim() == 0:
        return callee(value.item)()
    if not isinstance(value.shape[0], int):
        if value.dim() > 1:
            raise Unsupported("Tensor.tolist()", "the length depends on data", "iterate over the tensor")
        form = SkeletonForm(torch.empty((), dtype=value.dtype))
        return GrowingList([value], value.shape[0], value.shape[0], form)
    return [_to_list(v) for v in value.unbind(0)]


def check_change(value: Any, construct: str) -> None:
    """Refuse to change a container that the module, or another part of the program, keeps after the call."""
    if id(value) in current().owned and current().capturing:
        raise Unsupported(
            construct,
            f"it changes a {type(value).__name__} attribute of the module, and an artifact has no memory between calls",
            "build a new container inside forward",
        )
