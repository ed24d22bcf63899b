"""Pass 6. `if`, `while` and `for` become calls of helpers that get the blocks as functions.

The blocks are local functions that share the names they write (`nonlocal`), so that running one in plain Python does
exactly what the author wrote; `state_n`/`restore_n` let a helper save and replace those names when it must stage the
blocks into a graph. `live` names those whose values can still be read afterwards.
"""

import ast

from deploypipe.compiler.build import assign, deferred, helper, name, place, strings
from deploypipe.compiler.scopes import Liveness, captured, written


def rewrite(function: ast.FunctionDef, sites: "SiteNumbers") -> None:
    parameters = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
    outer = {n for node in ast.walk(function) if isinstance(node, (ast.Nonlocal, ast.Global)) for n in node.names}
    always = captured(function) | outer
    pass_ = _Functional(Liveness(function.body, always), always, sites)
    body = pass_.block(function.body)
    start = [s for s in body[:1] if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)]
    fresh = sorted(pass_.shared - parameters - outer)
    unset = [assign(n, helper("undefined", ast.Constant(n)), function.body[0]) for n in fresh]
    function.body = [*start, *unset, *body[len(start) :]]


class SiteNumbers:
    """Numbers the control-flow sites of one function; the converter implements it."""

    def __call__(self, node: ast.AST, kind: str) -> int:
        raise NotImplementedError


class _Functional:
    def __init__(self, liveness: Liveness, always: set[str], sites: SiteNumbers) -> None:
        self.liveness = liveness
        self.always = always
        self.sites = sites
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
        names = sorted(_state(node.body) | _state(node.orelse))
        live = [n for n in names if n in self.liveness.after[node] | self.always]
        number = self._number()
        site = self.sites(node, "if")
        then = self._function(f"then_{number}_", node.body, names, node)
        orelse = self._function(f"else_{number}_", node.orelse, names, node)
        access = self._access(number, names, node)
        args = [ast.Constant(site), node.test, name(f"then_{number}_"), name(f"else_{number}_")]
        return [then, orelse, *access, self._call("if_", args, number, names, live, node)]

    def loop(self, node: ast.While | ast.For) -> list[ast.stmt]:
        target = written(node.target) if isinstance(node, ast.For) else set()
        test = written(node.test) if isinstance(node, ast.While) else set()
        names = sorted(_state(node.body) | target | test)
        live = [n for n in names if n in self.liveness.after[node] | self.always]
        carried = [n for n in names if n in self.liveness.head[node] | self.always]
        number = self._number()
        if isinstance(node, ast.While):
            site = self.sites(node, "while")
            body = self._function(f"body_{number}_", node.body, names, node)
            subject: list[ast.expr] = [deferred(node.test)]
        else:
            site = self.sites(node, "for")
            take = place(ast.Assign([node.target], name("item_")), node)
            body = self._function(f"body_{number}_", [take, *node.body], names, node, ["item_"])
            flags = getattr(node, "stop_flags", ())
            going: ast.expr = ast.Constant(None)
            if flags:
                calls: list[ast.expr] = [helper("not_", name(f)) for f in flags]
                going = deferred(calls[0] if len(calls) == 1 else helper("and_", *[deferred(c) for c in calls]))
            subject = [node.iter, going]
        access = self._access(number, names, node)
        args = [ast.Constant(site), *subject, name(f"body_{number}_")]
        function = "while_" if isinstance(node, ast.While) else "for_"
        call = self._call(function, args, number, names, live, node)
        assert isinstance(call.value, ast.Call)
        call.value.args.append(strings(carried))
        return [body, *access, call]

    def _number(self) -> int:
        self.count += 1
        return self.count

    def _call(
        self, function: str, args: list[ast.expr], number: int, names: list[str], live: list[str], at: ast.stmt
    ) -> ast.Expr:
        access: list[ast.expr] = [name(f"state_{number}_"), name(f"restore_{number}_")]
        line = ast.copy_location(ast.Pass(), at)
        return place(ast.Expr(helper(function, *args, *access, strings(names), strings(live))), line)

    def _function(
        self, called: str, body: list[ast.stmt], names: list[str], at: ast.stmt, arguments: list[str] | None = None
    ) -> ast.stmt:
        self.shared |= set(names)
        share: list[ast.stmt] = [ast.Nonlocal(list(names))] if names else []
        inner = self.block(body) or [ast.Pass()]
        return place(ast.FunctionDef(called, _arguments(arguments or []), [*share, *inner], []), at)

    def _access(self, number: int, names: list[str], at: ast.stmt) -> list[ast.stmt]:
        """`state_n()` reads the shared names, `restore_n(values)` sets them."""
        values = ast.Tuple([name(n) for n in names], ast.Load())
        get = ast.FunctionDef(f"state_{number}_", _arguments([]), [ast.Return(values)], [])
        body: list[ast.stmt] = [ast.Pass()]
        if names:
            targets = ast.Tuple([ast.Name(n, ast.Store()) for n in names], ast.Store())
            body = [ast.Nonlocal(list(names)), ast.Assign([targets], name("values_"))]
        put = ast.FunctionDef(f"restore_{number}_", _arguments(["values_"]), body, [])
        return [place(get, at), place(put, at)]


def _state(body: list[ast.stmt]) -> set[str]:
    """Names a block shares with its surroundings: what it writes."""
    return written(body)


def _arguments(names: list[str]) -> ast.arguments:
    return ast.arguments(posonlyargs=[], args=[ast.arg(n) for n in names], kwonlyargs=[], kw_defaults=[], defaults=[])
