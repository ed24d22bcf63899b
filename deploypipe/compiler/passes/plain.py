"""Pass 0. Statements that are other words for an assignment become one.

`y: Tensor = x` loses its annotation, which a name shared by several blocks must not have. `del y` binds `y` to a value
that refuses every use, so that it can happen on one path only; `del items[0]` becomes a call of the list's method.
"""

import ast

from deploypipe.compiler.build import Emitter, OwnScope, assign, place


def apply(function: ast.FunctionDef, emit: Emitter) -> None:
    function.body = _Plain(emit).block(function.body)


class _Plain(OwnScope):
    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return place(ast.Pass(), node)
        return place(ast.Assign([node.target], node.value), node)

    def visit_Delete(self, node: ast.Delete) -> list[ast.stmt]:
        return [made for target in node.targets for made in self._delete(target, node)]

    def _delete(self, target: ast.expr, at: ast.Delete) -> list[ast.stmt]:
        match target:
            case ast.Name():
                return [assign(target.id, self.emit.undefined(target.id), at)]
            case ast.Tuple() | ast.List():
                return [made for part in target.elts for made in self._delete(part, at)]
            case ast.Subscript():
                method = ast.Attribute(target.value, "__delitem__", ast.Load())
                return [place(ast.Expr(ast.Call(method, [self.emit.index(target.slice)], [])), at)]
        raise AssertionError(f"the fence lets no {type(target).__name__} be deleted")
