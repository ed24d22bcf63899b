"""The world outside of torch, which an artifact cannot reach: calls of it are refused while capturing."""

from __future__ import annotations

import types
from typing import Any

from torch import Tensor, nn

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import current

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


def refuse_outside(function: Any) -> None:
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
