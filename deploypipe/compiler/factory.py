"""Rewritten functions: one factory per code object, instantiated with each function's own closure and defaults.

Functions made in a loop, and methods of a class that is made in a function, share one code object and differ in what
they close over and in their defaults: so only the code is cached.
"""

import ast
import difflib
import textwrap
import threading
import types
from dataclasses import dataclass
from pathlib import Path

from deploypipe.compiler.build import Emitter
from deploypipe.compiler.namer import Namer
from deploypipe.compiler.plain_calls import scope_of
from deploypipe.compiler.rewrite import rewrite_function
from deploypipe.compiler.sites import Site
from deploypipe.compiler.source import all_codes, compile_inside, function_tree


@dataclass(frozen=True)
class Factory:
    """Makes the rewritten form of every function that has one code object."""

    code: types.CodeType
    sites: tuple[Site, ...]
    helpers_name: str
    sites_name: str
    title: str
    """`file.py:Class.method`, for people."""
    diff: str
    """What was rewritten, as a unified diff."""

    def instantiate(self, fn: types.FunctionType, helpers: object) -> types.FunctionType:
        """`fn` with the rewritten body, and everything else (globals, defaults, closure cells) its own."""
        cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
        cells[self.helpers_name], cells[self.sites_name] = types.CellType(helpers), types.CellType(self.sites)
        closure = tuple(cells[name] for name in self.code.co_freevars)
        made = types.FunctionType(self.code, fn.__globals__, fn.__name__, fn.__defaults__, closure)
        made.__kwdefaults__ = fn.__kwdefaults__
        made.__qualname__ = fn.__qualname__
        made.__module__ = fn.__module__
        return made


_lock = threading.RLock()
_factories: dict[tuple[types.CodeType, str, str], Factory] = {}
_rewritten: set[types.CodeType] = set()


def factory_of(fn: types.FunctionType) -> Factory:
    """The factory for the code of `fn`. Raises `SourceUnavailable` when there is no source to rewrite, and Unsupported
    when the source holds what the passes do not support."""
    key = (fn.__code__, fn.__code__.co_filename, fn.__module__ or "")
    with _lock:
        if key not in _factories:
            made = _factory(fn)
            _factories[key] = made
            _rewritten.update(all_codes(made.code))
        return _factories[key]


def is_rewritten(code: types.CodeType) -> bool:
    """Whether code is, or was defined inside, code that a factory made."""
    return code in _rewritten


def _factory(fn: types.FunctionType) -> Factory:
    node, text = function_tree(fn)
    file = fn.__code__.co_filename
    namer = Namer(node)
    emit = Emitter(namer, file, fn.__qualname__)
    rewrite_function(node, emit, text, scope_of(fn))
    after = ast.unparse(node) + "\n"
    node.name = namer.fresh(f"{node.name}_")
    code = compile_inside(node, [emit.helpers, emit.sites_name, *fn.__code__.co_freevars], file)
    code = code.replace(co_name=fn.__code__.co_name, co_qualname=fn.__code__.co_qualname)
    return Factory(
        code, tuple(emit.sites), emit.helpers, emit.sites_name, f"{Path(file).name}:{fn.__qualname__}",
        _diff(textwrap.dedent(text), after, Path(file).name),
    )  # fmt: skip


def _diff(before: str, after: str, title: str) -> str:
    lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(*lines, title, "rewritten", n=1))
