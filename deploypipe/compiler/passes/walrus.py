"""Pass 2. `:=` in a condition becomes an assignment before it, since later passes put conditions into lambdas."""

import ast

from deploypipe.compiler.build import name, place, store


def apply(function: ast.FunctionDef) -> None:
    function.body = _block(function.body)


def _block(body: list[ast.stmt]) -> list[ast.stmt]:
    out: list[ast.stmt] = []
    for node in body:
        for part in ("body", "orelse", "finalbody"):
            block = getattr(node, part, None)
            if isinstance(block, list) and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                setattr(node, part, _block(block))
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                handler.body = _block(handler.body)
        if isinstance(node, ast.While) and (taken := _take(node.test)):
            test, assigns = taken
            leave = ast.If(ast.UnaryOp(ast.Not(), test), [ast.Break()], [])
            node.test = ast.Constant(True)
            node.body = [*assigns, leave, *node.body]
        elif isinstance(node, (ast.If, ast.Assign, ast.Expr, ast.Return, ast.Assert)):
            field = "value" if isinstance(node, (ast.Assign, ast.Expr, ast.Return)) else "test"
            value = getattr(node, field)
            if value is not None and (taken := _take(value)):
                setattr(node, field, taken[0])
                out += [place(a, node) for a in taken[1]]
        out.append(place(node, node))
    return out


def _take(test: ast.expr) -> tuple[ast.expr, list[ast.stmt]] | None:
    """The expression without its `:=`, and the assignments that go before it. Only those evaluated first of all."""
    taken: list[ast.stmt] = []

    class Take(ast.NodeTransformer):
        def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.AST:
            value = self.visit(node.value)
            taken.append(ast.Assign([store(node.target.id)], value))
            return name(node.target.id)

        def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
            node.values[0] = self.visit(node.values[0])  # the others may not be evaluated at all
            return node

        def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
            node.test = self.visit(node.test)
            return node

        def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
            return node

        visit_ListComp = visit_GeneratorExp = visit_DictComp = visit_SetComp = visit_Lambda  # type: ignore[assignment]

    test = Take().visit(test)
    return (test, taken) if taken else None
