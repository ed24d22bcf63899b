"""All passes over a function, in their order, behind the fence."""

import ast

from deploypipe.compiler import fence
from deploypipe.compiler.build import Emitter
from deploypipe.compiler.passes import (
    comprehensions,
    expressions,
    functional,
    jumps,
    matches,
    mutations,
    plain,
    walrus,
)
from deploypipe.compiler.plain_calls import Scope, is_plain_call
from deploypipe.compiler.scopes import locals_of, walk_scope


def rewrite_function(function: ast.FunctionDef, emit: Emitter, text: str, scope: Scope) -> None:
    """Rewrite a definition in place. `text` is its source, for messages; Unsupported where the fence refuses it."""
    fence.check_syntax(function, emit.file, text)
    _passes(function, emit, scope)
    ast.fix_missing_locations(function)


def _passes(function: ast.FunctionDef, emit: Emitter, scope: Scope) -> None:
    """The passes over a definition and, each on its own, over the definitions inside it."""
    plain.apply(function, emit)
    matches.apply(function, emit)
    walrus.apply(function)
    comprehensions.apply(function, emit)
    nested = [node for node in walk_scope(function.body) if isinstance(node, ast.FunctionDef)]
    mutations.apply(function, emit)
    jumps.apply(function, emit)
    local = locals_of(function)
    visible = {name: value for name, value in scope.items() if name not in local}
    expressions.apply(function, emit, lambda callee: is_plain_call(callee, visible))
    for inner in nested:
        _passes(inner, emit.inside(inner.name), visible)
    functional.apply(function, emit)
