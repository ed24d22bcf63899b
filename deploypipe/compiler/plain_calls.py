"""Which calls stay as the author wrote them: those of torch's functions on tensors, named through the module."""

import ast
import builtins
import types
from collections.abc import Callable, Mapping
from typing import Any

Scope = Mapping[str, Any]
"""What a name means in the module of a function."""

THROUGH_HELPER = {
    "stack", "cat", "concat", "concatenate", "hstack", "vstack", "dstack", "tensor", "as_tensor", "no_grad",
    "is_grad_enabled", "manual_seed", "cond", "while_loop", "is_tensor", "split", "chunk", "column_stack",
    "block_diag", "einsum", "meshgrid", "broadcast_tensors", "equal", "allclose", "unbind", "is_nonzero",
    "scaled_dot_product_attention",
}  # fmt: skip
"""Functions of torch that take lists or Python numbers, which may have become dynamic: they go through the helper."""


def scope_of(fn: types.FunctionType) -> Scope:
    """What the global names of a function mean now. Names of a function around it are left out: they may mean something
    else for the next function that is made from the same code."""
    scope = dict(vars(builtins)) | fn.__globals__
    return {name: value for name, value in scope.items() if name not in fn.__code__.co_freevars}


def is_plain_call(callee: ast.expr, scope: Scope) -> bool:
    """Whether the callee is surely a function of torch on tensors."""
    path: list[str] = []
    while isinstance(callee, ast.Attribute):
        path.insert(0, callee.attr)
        callee = callee.value
    if not isinstance(callee, ast.Name) or callee.id not in scope:
        return False
    value = scope[callee.id]
    if isinstance(value, types.ModuleType):
        if not (value.__name__ == "torch" or value.__name__.startswith("torch.nn.functional")) or not path:
            return False
        for part in path:
            value = getattr(value, part, None)
    elif path:
        return False
    if path and path[-1] in THROUGH_HELPER:
        return False
    return isinstance(value, (types.BuiltinFunctionType, types.FunctionType)) and _is_torchs(value)


def _is_torchs(value: Callable[..., Any]) -> bool:
    module = getattr(value, "__module__", None) or ""
    return module == "torch" or module.startswith(("torch.functional", "torch.nn.functional", "torch._C"))
