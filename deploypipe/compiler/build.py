"""Small constructors of trees, shared by the passes."""

import ast
from typing import TypeVar

from deploypipe.compiler.source import HELPERS

T = TypeVar("T", bound=ast.AST)


def name(identifier: str) -> ast.Name:
    return ast.Name(identifier, ast.Load())


def store(identifier: str) -> ast.Name:
    return ast.Name(identifier, ast.Store())


def assign(identifier: str, value: ast.expr, at: ast.AST) -> ast.stmt:
    return place(ast.Assign([store(identifier)], value), at)


def helper(function: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Attribute(name(HELPERS), function, ast.Load()), list(args), [])


def is_helper_call(node: ast.AST, *functions: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == HELPERS
        and (not functions or node.func.attr in functions)
    )


def deferred(value: ast.expr) -> ast.Lambda:
    """`lambda: value`, evaluated by a helper if and when the author's code would have evaluated it."""
    empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    made = ast.Lambda(empty, value)
    made.deferred_operand = True  # type: ignore[attr-defined]
    return made


def strings(values: list[str]) -> ast.Tuple:
    return ast.Tuple([ast.Constant(v) for v in values], ast.Load())


def place(node: T, at: ast.AST) -> T:
    """Give a new node, and everything in it that has none, the line of the author's node that it replaces."""
    for part in ast.walk(node):
        if "lineno" in part._attributes and not hasattr(part, "lineno"):
            ast.copy_location(part, at)
    return node


def index_expression(node: ast.expr) -> ast.expr:
    """A subscript as an expression of its own: slices become calls of `slice`."""
    if isinstance(node, ast.Slice):
        return helper("slice", *[part or ast.Constant(None) for part in (node.lower, node.upper, node.step)])
    if isinstance(node, ast.Tuple):
        return ast.Tuple([index_expression(e) for e in node.elts], ast.Load())
    return node
