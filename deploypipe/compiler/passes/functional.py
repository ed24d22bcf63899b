"""Pass 7. `if`, `while` and `for` become calls of helpers that get the blocks as functions.

The blocks are local functions that share the names they write (`nonlocal`), so that running one in plain Python does
exactly what the author wrote. A frame, made of `state_n` and `restore_n`, lets a helper save and replace those names
when it must stage the blocks into a graph; it tells which of them can still be read afterwards (live), and which a loop
hands from one iteration to the next (carried).
"""

import ast
from collections.abc import Sequence

from deploypipe.compiler.build import Emitter, arguments, assign, at_first_line, deferred, name, place, store
from deploypipe.compiler.scopes import Liveness, names_bound, names_captured, own_nonlocals, parameters, stop_flags


def apply(function: ast.FunctionDef, emit: Emitter) -> None:
    outer = own_nonlocals(function)
    always = names_captured(function) | outer
    pass_ = _Functional(Liveness(function.body, always), always, emit)
    body = pass_.block(function.body)
    start = [s for s in body[:1] if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)]
    unset = sorted(pass_.shared - set(parameters(function)) - outer)
    at = function.body[0]
    function.body = [*start, *(assign(n, emit.undefined(n), at) for n in unset), *body[len(start) :]]


class _Functional:
    def __init__(self, liveness: Liveness, always: set[str], emit: Emitter) -> None:
        self.liveness = liveness
        self.always = always
        self.emit = emit
        self.shared: set[str] = set()
        self.count = 0

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [made for statement in body for made in self.statement(statement)]

    def statement(self, node: ast.stmt) -> list[ast.stmt]:
        match node:
            case ast.If():
                return self.branch(node)
            case ast.While() | ast.For():
                return self.loop(node)
            case ast.With():
                node.body = self.block(node.body)
            case ast.Try():
                node.body, node.orelse = self.block(node.body), self.block(node.orelse)
                node.finalbody = self.block(node.finalbody)
                for handler in node.handlers:
                    handler.body = self.block(handler.body)
        return [node]

    def branch(self, node: ast.If) -> list[ast.stmt]:
        names = sorted(names_bound(node.body) | names_bound(node.orelse))
        live = [n for n in names if n in self.liveness.after[node] | self.always]
        number = self._number()
        site = self.emit.site(node, "if")
        then = self._function(f"then_{number}_", node.body, names, node)
        orelse = self._function(f"else_{number}_", node.orelse, names, node)
        access, frame = self._frame(number, names, live, [], node)
        call = self.emit.helper("if_", site, node.test, name(then.name), name(orelse.name), frame)
        return [then, orelse, *access, place(ast.Expr(call), at_first_line(node))]

    def loop(self, node: ast.While | ast.For) -> list[ast.stmt]:
        target = names_bound(node.target if isinstance(node, ast.For) else node.test)
        names = sorted(names_bound(node.body) | target)
        live = [n for n in names if n in self.liveness.after[node] | self.always]
        carried = [n for n in names if n in self.liveness.head[node] | self.always]
        number = self._number()
        if isinstance(node, ast.While):
            site = self.emit.site(node, "while")
            body = self._function(f"body_{number}_", node.body, names, node)
            subject: list[ast.expr] = [deferred(node.test)]
        else:
            site = self.emit.site(node, "for")
            item = self.emit.namer.fresh("item_")
            take = place(ast.Assign([node.target], name(item)), node)
            body = self._function(f"body_{number}_", [take, *node.body], names, node, [item])
            subject = [node.iter, self._going(sorted(stop_flags(node)))]
        access, frame = self._frame(number, names, live, carried, node)
        function = self.emit.helper("while_" if isinstance(node, ast.While) else "for_", site, *subject,
                                    name(body.name), frame)  # fmt: skip
        return [body, *access, place(ast.Expr(function), at_first_line(node))]

    def _going(self, flags: Sequence[str]) -> ast.expr:
        """Whether a `for` that can be left early goes on; None for one that cannot."""
        if not flags:
            return ast.Constant(None)
        calls: list[ast.expr] = [self.emit.helper("not_", name(flag)) for flag in flags]
        return deferred(calls[0] if len(calls) == 1 else self.emit.helper("and_", *[deferred(c) for c in calls]))

    def _number(self) -> int:
        self.count += 1
        return self.count

    def _function(
        self, wish: str, body: list[ast.stmt], names: list[str], at: ast.stmt, parameters: Sequence[str] = ()
    ) -> ast.FunctionDef:
        """A block as a local function."""
        called = self.emit.namer.fresh(wish)
        self.shared |= set(names)
        share: list[ast.stmt] = [ast.Nonlocal(list(names))] if names else []
        inner = self.block(body) or [ast.Pass()]
        return place(ast.FunctionDef(called, arguments(parameters), [*share, *inner], []), at)

    def _frame(
        self, number: int, names: list[str], live: list[str], carried: list[str], at: ast.stmt
    ) -> tuple[list[ast.stmt], ast.expr]:
        """`state_n()` reads the shared names, `restore_n(values)` sets them; and the frame made of both."""
        read, write, values = (self.emit.namer.fresh(w) for w in (f"state_{number}_", f"restore_{number}_", "values_"))
        get = ast.FunctionDef(read, arguments(), [ast.Return(ast.Tuple([name(n) for n in names], ast.Load()))], [])
        body: list[ast.stmt] = [ast.Pass()]
        if names:
            targets = ast.Tuple([store(n) for n in names], ast.Store())
            body = [ast.Nonlocal(list(names)), ast.Assign([targets], name(values))]
        put = ast.FunctionDef(write, arguments([values]), body, [])
        labels = [self.emit.labels(group) for group in (names, live, carried)]
        frame = self.emit.helper("frame", name(read), name(write), *labels)
        return [place(get, at), place(put, at)], frame
