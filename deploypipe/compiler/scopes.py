"""Analysis: which names a piece of code reads, writes, and which are live (may still be read) after it."""

import ast
from collections.abc import Iterable, Iterator

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
LOOPS = (ast.While, ast.For)


def walk_scope(nodes: ast.AST | Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Every node of one function's own scope: nested functions and classes are yielded, not entered."""
    todo = [nodes] if isinstance(nodes, ast.AST) else list(nodes)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            todo.extend(ast.iter_child_nodes(node))


def written(nodes: ast.AST | Iterable[ast.AST]) -> set[str]:
    """Names bound in this scope: assignments, loop targets, `with … as`, imports, local definitions, walrus."""
    names: set[str] = set()
    for node in walk_scope(nodes):
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        elif (isinstance(node, ast.ExceptHandler) and node.name) or (
            isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name
        ):
            names.add(node.name)
        elif isinstance(node, ast.Lambda):
            # A walrus inside a deferred operand binds in the function around it.
            names |= {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
    return names


def read(nodes: ast.AST | Iterable[ast.AST]) -> set[str]:
    """Names that may be read, by this scope or by a function defined in it."""
    todo = [nodes] if isinstance(nodes, ast.AST) else list(nodes)
    names = {n.id for top in todo for n in ast.walk(top) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for top in todo:
        for node in ast.walk(top):
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    return names


def captured(function: ast.FunctionDef) -> set[str]:
    """Names that a nested function or lambda of the user reads: they may be read at any later time."""
    return {
        name
        for node in walk_scope(function.body)
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) and not getattr(node, "deferred_operand", False)
        for name in read(node)
    }


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
                return read(node.test) | self.block(node.body, live) | self.block(node.orelse, live)
            case ast.While() | ast.For():
                own = read(node.test) if isinstance(node, ast.While) else read(node.iter) | jump_names(node)
                targets = written(node.target) if isinstance(node, ast.For) else set()
                head = live | own
                while True:
                    grown = head | (self.block(node.body, head) - targets)
                    if grown == head:
                        break
                    head = grown
                self.head[node] = head
                return head | own
            case ast.With():
                inner = self.block(node.body, live)
                return (inner - written(node.items)) | read([item.context_expr for item in node.items])
            case ast.Try():
                inner = self.block(node.body, self.block(node.orelse, live | read(node.finalbody)))
                for handler in node.handlers:
                    inner = inner | self.block(handler.body, live)
                return inner | live | read(node.finalbody)
            case ast.Assign() | ast.AnnAssign():
                assigned = node.targets if isinstance(node, ast.Assign) else [node.target]
                stored = {n for t in assigned if isinstance(t, (ast.Name, ast.Tuple, ast.List)) for n in written(t)}
                return (live - stored) | read(node)
            case ast.FunctionDef():
                return (live - {node.name}) | read(node)
            case _:
                return live | read(node)


def jump_names(node: ast.For) -> set[str]:
    """The flags that end this `for` loop early, which its (implicit) test reads."""
    return set(getattr(node, "stop_flags", ()))
