"""The fence: looks at a whole function before any pass runs, and refuses each form that the passes do not support.

A refusal names the author's line, shows it with a caret under the construct, and says why and what to do instead.
"""

import ast
from collections.abc import Iterator

from deploypipe.compiler.scopes import walk_scope
from deploypipe.compiler.unsupported import Unsupported

SUPPORTED = (
    ast.FunctionDef, ast.ClassDef, ast.Return, ast.Delete, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For, ast.While,
    ast.If, ast.With, ast.Match, ast.Raise, ast.Try, ast.Assert, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal,
    ast.Expr, ast.Pass, ast.Break, ast.Continue,
)  # fmt: skip
"""The statements that the passes know, though not in every form."""

WAITING = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
NAMES_OF_LOCALS = {"locals", "eval", "exec"}

Reason = tuple[str, str, str]
"""The construct, why it is not supported, and one thing to do."""


def check_syntax(function: ast.FunctionDef, file: str, text: str) -> None:
    """Unsupported for the first form, in the order of the lines, that the passes do not support."""
    found = [*_forms(function), *_lazy_assignments(function)]
    if not found:
        return
    node, (construct, why, remedy) = min(found, key=lambda each: (_line(each[0]), _column(each[0])))
    first = min(_line(function), *(_line(decorator) for decorator in [function, *function.decorator_list]))
    raise Unsupported(construct, why, remedy, f"{file}:{_line(node)}", _excerpt(node, text, first))


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def _column(node: ast.AST) -> int:
    return getattr(node, "col_offset", 0)


def _forms(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, Reason]]:
    for node in walk_scope(function.body):
        if isinstance(node, ast.Nonlocal):
            yield node, _python_variable(f"nonlocal {', '.join(node.names)}")
    for node in ast.walk(function):
        reason = _reason(node, function)
        if reason is not None:
            yield node, reason
        if isinstance(node, ast.Try):
            for jump in _jumps_out_of(node.finalbody):
                yield (
                    jump,
                    (
                        f"`{type(jump).__name__.lower()}` in `finally`",
                        "it would swallow an exception, and an artifact has none",
                        "move it behind the `try` statement",
                    ),
                )


def _reason(node: ast.AST, function: ast.FunctionDef) -> Reason | None:
    match node:
        case ast.Global():
            return _python_variable(f"global {', '.join(node.names)}")
        case ast.Yield() | ast.YieldFrom():
            return f"{_owner(node, function)}()", "it is a generator (`yield`), which runs in steps", "return a list"
        case ast.TryStar():
            return "`except*`", "the artifact has no exceptions to catch", "test the condition with an if before"
        case ast.Delete():
            attribute = next((t for t in node.targets if isinstance(t, ast.Attribute)), None)
            if attribute is not None:
                text = ast.unparse(attribute)
                return f"`del {text}`", "the artifact has no memory between calls", f"leave `{text}` as it is"
        case ast.Call(func=ast.Name(id=name)) if name in NAMES_OF_LOCALS:
            return f"`{name}(…)`", "it sees the names of the rewritten function", "name the variables themselves"
        case ast.comprehension(is_async=1):
            return "`async for`", "the artifact runs in one go and cannot wait", "write it without `async`"
    if isinstance(node, WAITING):
        keyword = "await" if isinstance(node, ast.Await) else "async"
        return f"`{keyword}`", "the artifact runs in one go and cannot wait", f"write it without `{keyword}`"
    if isinstance(node, ast.stmt) and not isinstance(node, SUPPORTED):
        kind = type(node).__name__
        return f"`{ast.unparse(node)}`", f"statements of this kind ({kind}) are not supported", "move it out of forward"
    return None


def _python_variable(construct: str) -> Reason:
    return construct, "the artifact cannot change Python variables", "return the value instead"


def _owner(node: ast.AST, function: ast.FunctionDef) -> str:
    """The innermost function that holds a node."""
    inside = [f for f in ast.walk(function) if isinstance(f, ast.FunctionDef) and node in list(ast.walk(f))]
    return min(inside, key=lambda f: len(list(ast.walk(f)))).name


def _jumps_out_of(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What leaves a block otherwise than at its end."""
    loops = [node for node in walk_scope(body) if isinstance(node, (ast.For, ast.While))]
    ends_a_loop = {id(node) for loop in loops for node in walk_scope(loop.body)}
    for node in walk_scope(body):
        if isinstance(node, ast.Return) or (
            isinstance(node, (ast.Break, ast.Continue)) and id(node) not in ends_a_loop
        ):
            yield node


def _lazy_assignments(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, Reason]]:
    """`:=` where Python may not evaluate it: helpers get such operands as functions, which have names of their own."""
    for node in ast.walk(function):
        lazy: list[ast.expr] = []
        match node:
            case ast.BoolOp():
                lazy = node.values[1:]
            case ast.IfExp():
                lazy = [node.body, node.orelse]
            case ast.Compare():
                lazy = node.comparators[1:]
            case ast.ListComp() | ast.GeneratorExp():
                lazy = [node.elt, *(test for generator in node.generators for test in generator.ifs)]
        for operand in lazy:
            for part in walk_scope(operand):
                if isinstance(part, ast.NamedExpr):
                    yield (
                        part,
                        (
                            f"`{part.target.id} := …`",
                            "it stands where Python may not evaluate it",
                            f"assign `{part.target.id}` in a statement before",
                        ),
                    )


def _excerpt(node: ast.AST, text: str, first: int) -> str:
    """The source line of a node, and a caret under the node."""
    lines = text.splitlines()
    position = _line(node) - first
    if not 0 <= position < len(lines):
        return ""
    raw = lines[position].encode()
    start = len(raw[: _column(node)].decode(errors="replace"))
    line = raw.decode()
    end = len(line)
    if getattr(node, "end_lineno", None) == _line(node):
        end = len(raw[: getattr(node, "end_col_offset", len(raw))].decode(errors="replace"))
    cut = len(line) - len(line.lstrip())
    return f"    {line.strip()}\n    {' ' * (start - cut)}{'^' * max(1, end - start)}"
