"""Rewrites one function: runs the passes in order and compiles the result; each function is rewritten once."""

import ast
import builtins
import difflib
import textwrap
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploypipe.compiler import sites
from deploypipe.compiler.passes import comprehensions, expressions, functional, jumps, mutations, walrus
from deploypipe.compiler.scopes import walk_scope
from deploypipe.compiler.source import HELPERS, all_codes, compile_function, function_tree
from deploypipe.compiler.unsupported import Unsupported

# Callables of torch that take lists or Python numbers which may have become dynamic: they go through the helper.
THROUGH_HELPER = {
    "stack", "cat", "concat", "concatenate", "hstack", "vstack", "dstack", "tensor", "as_tensor", "no_grad",
    "is_grad_enabled", "manual_seed", "cond", "while_loop", "is_tensor", "split", "chunk", "column_stack",
    "block_diag", "einsum", "meshgrid", "broadcast_tensors", "equal", "allclose", "unbind", "is_nonzero",
}  # fmt: skip


@dataclass(frozen=True)
class Converted:
    function: types.FunctionType
    key: str
    diff: str
    original: types.FunctionType


_cache: dict[tuple[types.CodeType, tuple[int, ...]], Converted] = {}
REWRITTEN_CODES: dict[types.CodeType, str] = {}


def convert(fn: types.FunctionType, helpers: object) -> Converted:
    """The rewritten form of `fn`. Raises `SourceUnavailable` when there is no source to rewrite."""
    key = (fn.__code__, tuple(id(cell) for cell in fn.__closure__ or ()))
    if key not in _cache:
        _cache[key] = _convert(fn, helpers)
    return _cache[key]


def is_rewritten(fn: types.FunctionType) -> bool:
    """Whether a function is, or was defined inside, code that this module made."""
    return fn.__code__ in REWRITTEN_CODES


def _convert(fn: types.FunctionType, helpers: object) -> Converted:
    node, text = function_tree(fn)
    file, name = fn.__code__.co_filename, fn.__qualname__
    for part in walk_scope(node.body):
        if isinstance(part, ast.Global):
            raise Unsupported(
                f"global {', '.join(part.names)}",
                "the artifact cannot change Python variables",
                "return the value instead",
                f"{file}:{part.lineno}",
            )
    before = textwrap.dedent(text)
    rewrite_tree(node, file, name, _scope_of(fn))
    made = compile_function(node, fn, helpers)
    for code in all_codes(made.__code__):
        REWRITTEN_CODES[code] = name
    after = ast.unparse(node) + "\n"
    diff = "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), Path(file).name, "rewritten", n=1
        )
    )
    return Converted(made, f"{Path(file).name}:{name}", diff, fn)


def rewrite_tree(function: ast.FunctionDef, file: str, name: str, scope: dict[str, Any] | None = None) -> None:
    """All passes over a definition and, each on its own, over the definitions inside it."""
    scope = scope or {}
    walrus.rewrite(function)
    comprehensions.rewrite(function)
    nested = _nested(function)
    mutations.rewrite(function)
    jumps.rewrite(function)
    local = expressions.locals_of(function)
    numbers = _Numbers(file, name)
    expressions.rewrite(function, numbers, lambda callee: _plain_call(callee, scope, local))
    visible = {k: v for k, v in scope.items() if k not in local}
    for inner in nested:
        rewrite_tree(inner, file, f"{name}.<locals>.{inner.name}", visible)
    functional.rewrite(function, numbers)
    ast.fix_missing_locations(function)


class _Numbers(functional.SiteNumbers):
    def __init__(self, file: str, function: str) -> None:
        self.file, self.function = file, function

    def __call__(self, node: ast.AST, kind: str) -> int:
        return sites.number_of(node, kind, self.file, self.function)


def _nested(function: ast.FunctionDef) -> list[ast.FunctionDef]:
    """Definitions directly inside a function (not those inside them)."""
    return [n for n in walk_scope(function.body) if isinstance(n, ast.FunctionDef)]


def _scope_of(fn: types.FunctionType) -> dict[str, Any]:
    """What the free names of a function mean now: builtins, globals, closure."""
    scope = dict(vars(builtins)) | fn.__globals__
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            scope[name] = cell.cell_contents
        except ValueError:
            scope.pop(name, None)
    return scope


def _plain_call(callee: ast.expr, scope: dict[str, Any], local: set[str]) -> bool:
    """Whether the callee is surely a function of torch on tensors, to be left as the author wrote it."""
    path: list[str] = []
    while isinstance(callee, ast.Attribute):
        path.insert(0, callee.attr)
        callee = callee.value
    if not isinstance(callee, ast.Name) or callee.id in local or callee.id not in scope:
        return False
    value = scope[callee.id]
    if isinstance(value, types.ModuleType):
        if not (value.__name__ == "torch" or value.__name__.startswith("torch.nn.functional")) or len(path) == 0:
            return False
        for part in path:
            value = getattr(value, part, None)
    elif path:
        return False
    if path and path[-1] in THROUGH_HELPER:
        return False
    return isinstance(value, (types.BuiltinFunctionType, types.FunctionType)) and _of_torch(value)


def _of_torch(value: Callable[..., Any]) -> bool:
    module = getattr(value, "__module__", None) or ""
    return module == "torch" or module.startswith(("torch.functional", "torch.nn.functional", "torch._C"))


__all__ = ["HELPERS", "Converted", "convert", "is_rewritten", "rewrite_tree"]
