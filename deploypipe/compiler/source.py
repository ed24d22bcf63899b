"""From a function to the tree of its source, and from a rewritten tree back to code.

The rewritten code keeps the author's file name and line numbers, so a traceback through it shows the author's lines.
"""

import ast
import inspect
import textwrap
import types


class SourceUnavailable(Exception):
    """The function's source cannot be found (typed in a shell, built by exec, written in C)."""


def function_tree(fn: types.FunctionType) -> tuple[ast.FunctionDef, str]:
    """The definition of `fn` as a tree whose line numbers are those of its file, and its source text."""
    code = fn.__code__
    try:
        lines, first = inspect.getsourcelines(code)
    except (OSError, TypeError) as error:
        raise SourceUnavailable(str(error)) from error
    text = "".join(lines)
    if fn.__name__ == "<lambda>":
        return _lambda_tree(fn, text, first), text
    indented = text[:1].isspace()
    try:
        tree = ast.parse("if 1:\n" + text if indented else text)
    except SyntaxError as error:
        raise SourceUnavailable(f"its source does not parse alone: {error.msg}") from error
    node = tree.body[0].body[0] if indented else tree.body[0]  # type: ignore[attr-defined]
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name != code.co_name:
        raise SourceUnavailable("the source found is another definition (was the file edited since it was imported?)")
    ast.increment_lineno(node, first - 1 - int(indented))
    if isinstance(node, ast.AsyncFunctionDef):
        raise SourceUnavailable("it is a coroutine, and the artifact runs in one go")
    _mangle_private_names(node, fn)
    return node, text


def _lambda_tree(fn: types.FunctionType, text: str, first: int) -> ast.FunctionDef:
    """A lambda as a definition with one `return`; found by its position, since a line may hold several."""
    cut = len(text) - len(text.lstrip())
    try:
        tree = ast.parse(textwrap.dedent(text).strip().rstrip(","))
    except SyntaxError as error:
        raise SourceUnavailable("a lambda whose line does not parse alone") from error
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
    found = [node for node in found if tuple(a.arg for a in node.args.args) == names]
    if len(found) > 1:
        same = [node for node in found if _lambda_code(node) == fn.__code__.co_code]
        found = same if same else found
    if len(found) != 1:
        raise SourceUnavailable("several lambdas on one line")
    node = found[0]
    definition = ast.FunctionDef("lambda_", node.args, [ast.Return(node.body)], [])
    ast.copy_location(definition, node)
    ast.copy_location(definition.body[0], node.body)
    ast.increment_lineno(definition, first - 1)
    for part in ast.walk(definition):
        if hasattr(part, "col_offset"):
            part.col_offset += cut
            part.end_col_offset += cut  # type: ignore[attr-defined]
    return ast.fix_missing_locations(definition)


def _lambda_code(node: ast.Lambda) -> bytes:
    module = compile(ast.fix_missing_locations(ast.Expression(node)), "<lambda>", "eval")
    return next(c for c in module.co_consts if isinstance(c, types.CodeType)).co_code


def _mangle_private_names(node: ast.FunctionDef, fn: types.FunctionType) -> None:
    """`self.__x` means `self._Class__x` inside a class; the rewritten function is compiled outside of it."""
    owner = fn.__qualname__.rpartition(".")[0].rpartition(".")[2].lstrip("_")
    if not owner or owner == "<locals>":
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and part.attr.startswith("__") and not part.attr.endswith("__"):
            part.attr = f"_{owner}{part.attr}"


def compile_inside(node: ast.FunctionDef, around: list[str], file: str) -> types.CodeType:
    """The code of a definition as it is inside a function that has the names `around`: those become its free variables.

    `node` must have a name that it does not use itself: a function that calls itself by name means what its own module,
    or the function around it, calls so.
    """
    node.decorator_list = []
    node.returns = None
    node.args.defaults = []
    node.args.kw_defaults = [None] * len(node.args.kwonlyargs)
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    outer = ast.parse(f"def factory({', '.join(around)}):\n    return None").body[0]
    assert isinstance(outer, ast.FunctionDef)
    outer.body = [node]
    module = ast.fix_missing_locations(ast.Module([outer], []))
    code = compile(module, file, "exec", dont_inherit=True)
    return _inner_code(_inner_code(code, "factory"), node.name)


def _inner_code(code: types.CodeType, name: str) -> types.CodeType:
    return next(c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == name)


def all_codes(code: types.CodeType) -> list[types.CodeType]:
    """A code object and every one nested in it."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [code, *(each for c in inner for each in all_codes(c))]
