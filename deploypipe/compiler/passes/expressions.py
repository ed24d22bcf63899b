"""Pass 6. Expressions that ask for a truth value, and calls, go through helpers.

`and`, `or`, `not`, chained comparisons, `in` and the ternary evaluate their operands lazily in Python; the helpers get
them as lambdas and decide by the value. `f(x)` becomes `helpers_.call(f)(x)`, which rewrites `f` when it is the user's.
Functions of torch that take tensors only, named through the module, stay as they are. `//`, `%` and `**` go through a
helper, for numbers that depend on data.
"""

import ast
from collections.abc import Callable

from deploypipe.compiler.build import Emitter, at_first_line, deferred, place
from deploypipe.compiler.helper_names import HelperName

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], str] = {ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**"}


def apply(function: ast.FunctionDef, emit: Emitter, plain_call: Callable[[ast.expr], bool]) -> None:
    """`plain_call` tells the callees that need no helper."""
    pass_ = _Expressions(emit, plain_call, function)
    pass_.visit_body(function)


class _Expressions(ast.NodeTransformer):
    def __init__(self, emit: Emitter, plain_call: Callable[[ast.expr], bool], function: ast.FunctionDef) -> None:
        self.emit = emit
        self.plain_call = plain_call
        positional = [*function.args.posonlyargs, *function.args.args]
        self.first_parameter = positional[0].arg if positional else None

    def visit_body(self, function: ast.FunctionDef) -> None:
        done = [self.visit(statement) for statement in function.body]
        function.body = [s for made in done for s in (made if isinstance(made, list) else [made])]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.args.defaults = [self.visit(d) for d in node.args.defaults]
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        node.body = self.visit(node.body)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        function: HelperName = "and_" if isinstance(node.op, ast.And) else "or_"
        values = [self.visit(v) for v in node.values]
        return place(self.emit.helper(function, *[deferred(v) for v in values]), node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return place(self.emit.helper("not_", node.operand), node) if isinstance(node.op, ast.Not) else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        number = self.emit.site(node, "ternary")
        self.generic_visit(node)
        parts = [number, node.test, deferred(node.body), deferred(node.orelse)]
        return place(self.emit.helper("ifexp", *parts), node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        symbols = [COMPARISONS[type(op)] for op in node.ops]
        if len(symbols) == 1 and symbols[0] not in ("in", "not in") and not _with_zero_or_one(node):
            return node
        pairs: list[ast.expr] = []
        for symbol, right in zip(symbols, node.comparators, strict=True):
            pairs += [ast.Constant(symbol), deferred(right)]
        return place(self.emit.helper("compare", node.left, *pairs), node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return self._arithmetic(node.op, node.left, node.right, node) or node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            return node
        value = self._arithmetic(node.op, ast.Name(node.target.id, ast.Load()), node.value, node, "i")
        return node if value is None else place(ast.Assign([node.target], value), node)

    def _arithmetic(
        self, kind: ast.operator, left: ast.expr, right: ast.expr, at: ast.AST, prefix: str = ""
    ) -> ast.Call | None:
        """Operators whose meaning for numbers that depend on data is Python's, not the runtime's."""
        symbol = ARITHMETIC.get(type(kind))
        if symbol is None or (isinstance(left, ast.Constant) and isinstance(right, ast.Constant)):
            return None
        return place(self.emit.helper("arithmetic", ast.Constant(prefix + symbol), left, right), at)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load) or _constant_index(node.slice):
            return node
        return place(self.emit.helper("getitem", node.value, self.emit.index(node.slice)), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if self.emit.is_helper_call(node):
            return self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args and self.first_parameter:
            node.args = [ast.Name("__class__", ast.Load()), ast.Name(self.first_parameter, ast.Load())]
            return place(node, node)
        plain = self.plain_call(node.func)
        self.generic_visit(node)
        if not plain:
            node.func = place(self.emit.helper("call", node.func), node.func)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        number = self.emit.site(node, "assert")
        self.generic_visit(node)
        message = deferred(node.msg or ast.Constant("assertion failed"))
        return place(ast.Expr(self.emit.helper("assert_", number, node.test, message)), node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self.generic_visit(node)
        return place(ast.Expr(self.emit.helper("raise_", node.exc or ast.Constant(None))), node)

    def visit_Try(self, node: ast.Try) -> ast.AST:
        self.generic_visit(node)
        if node.handlers:
            return [place(ast.Expr(self.emit.helper("refuse_try")), at_first_line(node)), node]  # type: ignore[return-value]
        return node


def _with_zero_or_one(node: ast.Compare) -> bool:
    """Whether 0 or 1 is compared: torch takes it for granted that an axis is not empty, the helper does not."""
    sides = [node.left, *node.comparators]
    ordered = not isinstance(node.ops[0], (ast.Is, ast.IsNot))
    return ordered and any(isinstance(s, ast.Constant) and s.value in (0, 1) for s in sides)


def _constant_index(node: ast.expr) -> bool:
    """Whether a subscript is written out in numbers, so that it cannot depend on data. `x[-3:]` may: it has fewer than
    three rows where `x` has."""
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    if any(isinstance(p, ast.Slice) and isinstance(p.lower, ast.UnaryOp) and p.upper is None for p in parts):
        return False
    bounds = [b for p in parts for b in ([p.lower, p.upper, p.step] if isinstance(p, ast.Slice) else [p])]
    return all(
        b is None or isinstance(b, ast.Constant) or (isinstance(b, ast.UnaryOp) and isinstance(b.operand, ast.Constant))
        for b in bounds
    )
