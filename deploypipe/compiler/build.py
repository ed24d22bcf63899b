"""Constructors of trees, shared by the passes."""

import ast
from collections.abc import Iterable, Sequence
from typing import TypeVar

from deploypipe.compiler.helper_names import HelperName
from deploypipe.compiler.namer import Namer
from deploypipe.compiler.sites import Site

T = TypeVar("T", bound=ast.AST)


class Emitter:
    """What the passes over one function make, beyond plain trees: fresh names, calls of helpers, and sites.

    The functions inside a function share its names and its list of sites.
    """

    def __init__(self, namer: Namer, file: str, function: str) -> None:
        self.namer, self.file, self.function = namer, file, function
        self.helpers, self.sites_name = namer.fresh("helpers_"), namer.fresh("sites_")
        self.sites: list[Site] = []

    def inside(self, function: str) -> "Emitter":
        """The emitter for a function that is defined in this one."""
        made = object.__new__(Emitter)
        made.__dict__.update(self.__dict__, function=f"{self.function}.<locals>.{function}")
        return made

    def helper(self, function: HelperName, *args: ast.expr, keywords: Sequence[ast.keyword] = ()) -> ast.Call:
        return ast.Call(ast.Attribute(name(self.helpers), function, ast.Load()), list(args), list(keywords))

    def is_helper_call(self, node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == self.helpers
        )

    def site(self, node: ast.AST, kind: str) -> ast.expr:
        """A new site at the author's node, as rewritten code refers to it."""
        number = len(self.sites)
        self.sites.append(Site(self.file, getattr(node, "lineno", 0), self.function, kind, number=number))
        return ast.Subscript(name(self.sites_name), ast.Constant(number), ast.Load())

    def index(self, node: ast.expr) -> ast.expr:
        """A subscript as an expression of its own: slices become calls of `slice`."""
        if isinstance(node, ast.Slice):
            return self.helper("slice", *[part or ast.Constant(None) for part in (node.lower, node.upper, node.step)])
        if isinstance(node, ast.Tuple):
            return ast.Tuple([self.index(e) for e in node.elts], ast.Load())
        return node

    def undefined(self, variable: str) -> ast.Call:
        """The value of a name that has none."""
        return self.helper("undefined", ast.Constant(self.namer.label(variable)))

    def labels(self, variables: Iterable[str]) -> ast.Tuple:
        return ast.Tuple([ast.Constant(self.namer.label(v)) for v in variables], ast.Load())


class OwnScope(ast.NodeTransformer):
    """Visits the statements of one function's own scope: the functions inside it get a run of their own."""

    def __init__(self, emit: Emitter) -> None:
        self.emit = emit

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for statement in body:
            made = self.visit(statement)
            out += made if isinstance(made, list) else [made]
        return out

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node


def name(identifier: str) -> ast.Name:
    return ast.Name(identifier, ast.Load())


def store(identifier: str) -> ast.Name:
    return ast.Name(identifier, ast.Store())


def assign(identifier: str, value: ast.expr, at: ast.AST) -> ast.stmt:
    return place(ast.Assign([store(identifier)], value), at)


def arguments(names: Sequence[str] = ()) -> ast.arguments:
    return ast.arguments(posonlyargs=[], args=[ast.arg(n) for n in names], kwonlyargs=[], kw_defaults=[], defaults=[])


def either(tests: Sequence[ast.expr]) -> ast.expr:
    return tests[0] if len(tests) == 1 else ast.BoolOp(ast.Or(), list(tests))


def none_of(flags: Iterable[str]) -> ast.expr:
    negated: list[ast.expr] = [ast.UnaryOp(ast.Not(), name(flag)) for flag in sorted(flags)]
    return negated[0] if len(negated) == 1 else ast.BoolOp(ast.And(), negated)


def deferred(value: ast.expr) -> ast.Lambda:
    """`lambda: value`, evaluated by a helper if and when the author's code would have evaluated it."""
    made = ast.Lambda(arguments(), value)
    made.deferred_operand = True  # type: ignore[attr-defined]
    return made


def place(node: T, at: ast.AST) -> T:
    """Give a new node, and everything in it that has none, the line of the author's node that it replaces."""
    for part in ast.walk(node):
        if "lineno" in part._attributes and not hasattr(part, "lineno"):
            ast.copy_location(part, at)
    return node


def at_first_line(node: ast.stmt) -> ast.stmt:
    """A place at the beginning of a statement that spans several lines."""
    here = ast.copy_location(ast.Pass(), node)
    here.end_lineno, here.end_col_offset = node.lineno, node.col_offset
    return here
