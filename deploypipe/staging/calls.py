"""Calls: the user's functions are rewritten when they are called, the outside world is refused, the rest runs as is."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from deploypipe.compiler.factory import convert, is_rewritten
from deploypipe.compiler.source import SourceUnavailable
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import current
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.packing import number_of

GENERATES = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
REPLACEMENTS: list[types.ModuleType] = []  # builtins.py, which needs this module's callers loaded first

OUTSIDE = {
    "random": "draws from Python's generator",
    "numpy": "runs outside of torch",
    "time": "asks the clock",
    "datetime": "asks the clock",
    "os": "talks to the operating system",
    "io": "reads or writes",
    "subprocess": "starts a program",
    "socket": "talks to the network",
    "requests": "talks to the network",
    "urllib": "talks to the network",
    "logging": "writes a log",
    "warnings": "writes a warning",
    "secrets": "draws random numbers",
    "uuid": "draws random numbers",
    "scipy": "runs outside of torch",
    "pandas": "runs outside of torch",
}
WORLD = {
    print: "writes to the terminal",
    input: "reads from the terminal",
    open: "opens a file",
    id: "depends on memory",
}
REMEDY = {
    "random": "pass the random value in as an input",
    "numpy": "use the torch function of the same meaning",
}
RESERVED = {"numpy", "tolist", "data_ptr", "__array__"}


def call(function: Any) -> Callable[..., Any]:
    """What to call instead of `function`."""
    context = current()
    if context.capturing:
        replaced = _replaced(function)
        if replaced is not None:
            return replaced
    _refuse_outside(function)
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
    if is_rewritten(function):
        return function
    inner = getattr(function, "__wrapped__", None)
    if not is_users(function) and isinstance(inner, types.FunctionType) and is_users(inner):
        return resolve(inner)  # decorators of torch, such as no_grad: capture is inference already
    if not is_users(function):
        return function
    if function.__code__.co_flags & GENERATES:
        raise Unsupported(
            f"{function.__qualname__}()",
            "it is a generator (`yield`), which runs in steps",
            "return a list",
            _first_yield(function),
        )
    try:
        from deploypipe.staging.helpers import HELPERS  # helpers.py needs this module first

        converted = convert(function, HELPERS)
    except SourceUnavailable as error:
        raise Unsupported(
            f"call of {function.__qualname__}()", f"its source is not available ({error})", "define it in a file"
        ) from error
    current().rewritten.setdefault(converted.key, converted.diff)
    return converted.function


def _first_yield(function: types.FunctionType) -> str:
    """Where a generator function yields."""
    for instruction in dis.get_instructions(function.__code__):
        if instruction.opname == "YIELD_VALUE" and instruction.positions is not None:
            return f"{function.__code__.co_filename}:{instruction.positions.lineno}"
    return ""


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
    if function.__code__.co_filename.startswith("<frozen") or module.startswith(
        ("deploypipe.compiler", "deploypipe.staging")
    ):
        return False
    if root in ("torch", "builtins", "numpy", "typing", "onnxruntime"):
        return False
    return root not in sys.stdlib_module_names or root in ("__main__",)


def is_users_class(cls: type) -> bool:
    root = (cls.__module__ or "").partition(".")[0]
    return root not in ("torch", "builtins", "numpy") and root not in sys.stdlib_module_names


def _replaced(function: Any) -> Callable[..., Any] | None:
    replacements = REPLACEMENTS[0]
    try:
        if function in replacements.REPLACED and not isinstance(function, (Tensor, nn.Module)):
            return replacements.REPLACED[function]  # type: ignore[no-any-return]
    except TypeError:
        pass
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    if isinstance(owner, Tensor):
        if name == "item":
            if owner.dtype == torch.bool:
                return lambda: owner.reshape(())
            return lambda: (replacements.float_ if owner.is_floating_point() else replacements.int_)(owner)
        if name == "tolist":
            return lambda: _to_list(owner)
        if name in replacements.METHODS:
            return functools.partial(replacements.METHODS[name], owner)
        if name in ("numpy", "__array__"):
            raise Unsupported(f"Tensor.{name}()", "the value leaves torch", "stay with torch operations")
        if name == "data_ptr":
            raise Unsupported("Tensor.data_ptr()", "an address is not a value", "")
        if name == "__len__":
            return lambda: owner.shape[0]
        if name == "size" or name == "dim" or name == "numel":
            return None
    if function is torch.is_grad_enabled:
        raise Unsupported(
            "torch.is_grad_enabled()", "an artifact only infers, so it would be frozen", "use self.training"
        )
    if isinstance(owner, (list, dict, set)) and name in (
        "append",
        "extend",
        "insert",
        "pop",
        "clear",
        "remove",
        "update",
    ):
        check_change(owner, f"{type(owner).__name__}.{name}")
    return None


def _to_list(value: Tensor) -> Any:
    if value.dim() == 0:
        return call(value.item)()
    if not isinstance(value.shape[0], int):
        if value.dim() > 1:
            raise Unsupported("Tensor.tolist()", "the length depends on data", "iterate over the tensor")
        return GrowingList(
            [value], value.shape[0], value.shape[0], value[0] if False else torch.empty((), dtype=value.dtype)
        )
    return [_to_list(v) for v in value.unbind(0)]


def check_change(value: Any, construct: str) -> None:
    """Refuse to change a container that the module, or another part of the program, keeps after the call."""
    if id(value) in current().owned and current().capturing:
        raise Unsupported(
            construct,
            f"it changes a {type(value).__name__} attribute of the module, and an artifact has no memory between calls",
            "build a new container inside forward",
        )


def _refuse_outside(function: Any) -> None:
    if isinstance(function, (Tensor, nn.Module)):
        return
    try:
        if function in WORLD and current().capturing:
            raise Unsupported(
                f"{function.__name__}()", f"it {WORLD[function]}, which an artifact cannot do", "remove it"
            )
    except TypeError:
        return
    target = function
    if isinstance(function, types.BuiltinFunctionType) and getattr(function, "__self__", None) is not None:
        owner = function.__self__
        target = owner if isinstance(owner, types.ModuleType) else type(owner)
    elif isinstance(function, types.MethodType):
        target = type(function.__self__)
    module = target.__name__ if isinstance(target, types.ModuleType) else getattr(target, "__module__", None) or ""
    root = module.lstrip("_").partition(".")[0]
    root = {"posix": "os", "nt": "os"}.get(root, root)
    if root in OUTSIDE and current().capturing:
        called = getattr(function, "__qualname__", getattr(function, "__name__", str(function)))
        if not called.startswith(root):
            called = f"{root}.{called.rpartition('.')[2]}"
        raise Unsupported(
            f"{called}()",
            f"it {OUTSIDE[root]}, and the artifact would freeze one result",
            REMEDY.get(root, "move it out of forward"),
        )


def getitem(value: Any, index: Any) -> Any:
    """`value[index]` while capturing; the index may be a number that depends on data."""
    if isinstance(value, Tensor):
        return _windows(value, index)
    if isinstance(index, (torch.SymInt, Tensor)) and isinstance(value, (list, tuple, nn.ModuleList, nn.Sequential)):
        return _choose(value, index)
    if isinstance(index, (torch.SymInt, Tensor)) and isinstance(value, (dict, nn.ModuleDict)):
        raise Unsupported("a dictionary lookup", "the key depends on data", "use if/elif over the keys")
    return value[index]


def _windows(value: Tensor, index: Any) -> Tensor:
    """A subscript whose slices may have dynamic bounds; `x[t : t + 3]` has three rows, wherever it starts."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for axis, part in enumerate(parts):
        if part is None or part is Ellipsis or isinstance(part, (Tensor, bool)):
            break  # from here on, positions in the subscript are not axes
        if isinstance(part, slice) and part.step is None and isinstance(part.start, torch.SymInt):
            width = 0 if part.stop is None or isinstance(part.stop, Tensor) else part.stop - part.start
            number = width if isinstance(width, int) else width.node.maybe_as_int()
            if number is not None and number > 0 and statically_known_true(part.start >= 0):
                at = torch.arange(number) + part.start
                value = torch.index_select(value, axis, at)
                parts[axis] = slice(None)
    return value[tensor_index(tuple(parts))]


def tensor_index(index: Any) -> Any:
    """A tensor's subscript with every symbolic number as a 0-dim tensor, which means the same in every format."""
    if isinstance(index, tuple):
        return tuple(tensor_index(i) for i in index)
    if isinstance(index, torch.SymInt):
        return torch.scalar_tensor(index, dtype=torch.int64)
    if isinstance(index, slice) and any(isinstance(b, Tensor) for b in (index.start, index.stop, index.step)):
        return slice(
            *[
                number_of(b.to(torch.int64)) if isinstance(b, Tensor) else b
                for b in (index.start, index.stop, index.step)
            ]
        )
    return index


def _choose(items: Any, index: Any) -> Any:
    """An item of a constant sequence by a dynamic index: tensors and numbers are stacked, modules become a switch."""
    number = number_of(index) if isinstance(index, Tensor) else index
    entries = list(items)
    if all(isinstance(e, Tensor) for e in entries):
        return torch.stack(entries)[torch.scalar_tensor(number, dtype=torch.int64)]
    if (
        all(isinstance(e, (int, float)) and not isinstance(e, bool) for e in entries)
        and len({type(e) for e in entries}) == 1
    ):
        table = torch.tensor(entries, dtype=torch.float64 if isinstance(entries[0], float) else torch.int64)
        return table[torch.scalar_tensor(number, dtype=torch.int64)].item()
    if all(callable(e) for e in entries):
        return Switch(entries, number)
    raise Unsupported("an index that depends on data", "the sequence holds neither tensors nor modules", "use if/elif")


class Switch:
    """One of several callables, by a number that depends on data."""

    def __init__(self, entries: list[Any], index: Any) -> None:
        self.entries, self.index = entries, index

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from deploypipe.staging.helpers import HELPERS as helpers

        def choose(position: int) -> Any:
            if position == len(self.entries) - 1:
                return call(self.entries[position])(*args, **kwargs)
            here = self.index == position
            if position - len(self.entries) < 0:
                wrapped = self.index == position - len(self.entries)
                here = torch.sym_or(here, wrapped) if hasattr(torch, "sym_or") else here
            return helpers.ifexp(
                -1, here, lambda: call(self.entries[position])(*args, **kwargs), lambda: choose(position + 1)
            )

        return choose(0)
