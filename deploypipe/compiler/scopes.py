"""The one analysis: which names a piece of code reads and binds, and which are live (may still be read) after it."""

import ast
from collections.abc import Iterable, Iterator

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def walk_scope(nodes: ast.AST | Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Every node of one function's own scope: nested functions and classes are yielded, not entered."""
    todo = [nodes] if isinstance(nodes, ast.AST) else list(nodes)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*DEFINITIONS, ast.Lambda)):
            todo.extend(ast.iter_child_nodes(node))


def names_bound(nodes: ast.AST | Iterable[ast.AST]) -> set[str]:
    """Names bound in this scope: assignments, loop targets, `with … as`, imports, local definitions, captures."""
    names: set[str] = set()
    for node in walk_scope(nodes):
        match node:
            case ast.Name(ctx=ast.Store() | ast.Del()):
                names.add(node.id)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.alias():
                names.add((node.asname or node.name).split(".")[0])
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
                names |= {node.name} if node.name else set()
            case ast.MatchMapping():
                names |= {node.rest} if node.rest else set()
    return names


def names_read(nodes: ast.AST | Iterable[ast.AST]) -> set[str]:
    """Names that may be read, by this scope or by a function defined in it."""
    names: set[str] = set()
    for top in [nodes] if isinstance(nodes, ast.AST) else nodes:
        for node in ast.walk(top):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                names.add(node.id)
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    return names


def parameters(function: ast.FunctionDef) -> list[str]:
    return [node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)]


def locals_of(function: ast.FunctionDef) -> set[str]:
    """Names that are local to a function: what it binds, and its parameters."""
    return names_bound(function.body) | set(parameters(function))


def own_nonlocals(function: ast.FunctionDef) -> set[str]:
    """Names that a function declares to be those of a function around it."""
    return {name for node in walk_scope(function.body) if isinstance(node, ast.Nonlocal) for name in node.names}


def names_captured(function: ast.FunctionDef) -> set[str]:
    """Names that a function or class inside this one reads or binds: both may happen at any later time."""
    captured: set[str] = set()
    for node in walk_scope(function.body):
        if isinstance(node, (*DEFINITIONS, ast.Lambda)) and not getattr(node, "deferred_operand", False):
            captured |= names_read(node)
            captured |= {n for part in ast.walk(node) if isinstance(part, ast.Nonlocal) for n in part.names}
    return captured


class Liveness:
    """Backward liveness over a body whose only control flow is `if`, `while`, `for`, `with` and `try`.

    `after[statement]` is the set of names that may be read once the statement is done; `head[loop]` the names that
    may be read when the loop tests its condition.
    """

    def __init__(self, body: list[ast.stmt], at_end: set[str]) -> None:
        self.after: dict[ast.stmt, set[str]] = {}
        self.head: dict[ast.stmt, set[str]] = {}
        self.block(body, set(at_end))

    def block(self, body: list[ast.stmt], live: set[str]) -> set[str]:
        for statement in reversed(body):
            self.after[statement] = self.after.get(statement, set()) | live
            live = self.statement(statement, live)
        return live

    def statement(self, node: ast.stmt, live: set[str]) -> set[str]:
        match node:
            case ast.If():
                return names_read(node.test) | self.block(node.body, live) | self.block(node.orelse, live)
            case ast.While() | ast.For():
                return self.loop(node, live)
            case ast.With():
                inner = self.block(node.body, live)
                return (inner - names_bound(node.items)) | names_read([item.context_expr for item in node.items])
            case ast.Try():
                at_finally = self.block(node.finalbody, live)
                # The body may stop anywhere, so what a handler or `finally` reads is live in all of it.
                elsewhere = at_finally.union(*(self.block(h.body, at_finally) for h in node.handlers))
                elsewhere |= names_read([h.type for h in node.handlers if h.type is not None])
                return self.block(node.body, self.block(node.orelse, at_finally) | elsewhere) | elsewhere
            case ast.Assign():
                plain = [t for t in node.targets if isinstance(t, (ast.Name, ast.Tuple, ast.List))]
                return (live - names_bound(plain)) | names_read(node)
            case ast.FunctionDef():
                return (live - {node.name}) | names_read(node)
            case _:
                return live | names_read(node)

    def loop(self, node: ast.While | ast.For, live: set[str]) -> set[str]:
        if isinstance(node, ast.While):
            own, targets = names_read(node.test), set[str]()
        else:
            own, targets = names_read(node.iter) | stop_flags(node), names_bound(node.target)
        head = live | own
        while True:
            grown = head | (self.block(node.body, head) - targets)
            if grown == head:
                break
            head = grown
        self.head[node] = head
        return head


def stop_flags(node: ast.AST) -> set[str]:
    """The flags that end this `for` loop early, which its (implicit) test reads."""
    return set(getattr(node, "stop_flags", ()))
