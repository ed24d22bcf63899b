"""Pass 4. Changes of an object in place are made visible as assignments to the name that holds it.

`steps.append(y)` becomes `steps = helpers_.mutate(steps, 'append', y)`, and `x[i] = v` becomes
`x = helpers_.setitem(x, i, v)`: the later passes carry a list or tensor through a branch or loop only if they see that
it is written there. Assignments to attributes go through a helper that refuses those which outlive the call.
"""

import ast
import copy

from deploypipe.compiler.build import Emitter, OwnScope, assign, name, place, store
from deploypipe.compiler.helper_names import MUTATORS

OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "iadd", ast.Sub: "isub", ast.Mult: "imul", ast.Div: "itruediv", ast.FloorDiv: "ifloordiv",
    ast.Mod: "imod", ast.Pow: "ipow", ast.MatMult: "imatmul", ast.BitAnd: "iand", ast.BitOr: "ior",
    ast.BitXor: "ixor", ast.LShift: "ilshift", ast.RShift: "irshift",
}  # fmt: skip


def apply(function: ast.FunctionDef, emit: Emitter) -> None:
    function.body = _Mutations(emit).block(function.body)


class _Mutations(OwnScope):
    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in MUTATORS:
            root = _root(call.func.value)
            if isinstance(call.func.value, ast.Name):
                args = [call.func.value, ast.Constant(call.func.attr), *call.args]
                value = self.emit.helper("mutate", *args, keywords=call.keywords)
                return assign(call.func.value.id, value, node)
            if root is not None and not isinstance(call.func.value, ast.Call):
                args = [call.func.value, ast.Constant(call.func.attr), *call.args]
                inner = self.emit.helper("mutate", *args, keywords=call.keywords)
                return self._store(call.func.value, inner, node)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | list[ast.stmt]:
        value = node.value
        if (
            len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
            and isinstance(value, ast.Call)
            and isinstance(value.func, ast.Attribute)
            and value.func.attr == "pop"
            and isinstance(value.func.value, ast.Name)
            and len(value.args) <= 1
            and not value.keywords
        ):
            # v = steps.pop()  →  steps, v = helpers_.pop(steps)
            holder = value.func.value.id
            targets: ast.expr = ast.Tuple([store(holder), node.targets[0]], ast.Store())
            return place(ast.Assign([targets], self.emit.helper("pop", value.func.value, *value.args)), node)
        if all(isinstance(t, ast.Name) for t in node.targets):
            return node
        if len(node.targets) == 1 and isinstance(node.targets[0], (ast.Subscript, ast.Attribute)):
            return self._store(node.targets[0], node.value, node)
        if not any(isinstance(t, (ast.Subscript, ast.Attribute)) for top in node.targets for t in _leaves(top)):
            return node
        # Several targets, some of them parts of objects: through a name, then one by one.
        assigned = self.emit.namer.fresh("assigned_")
        out: list[ast.stmt] = [assign(assigned, node.value, node)]
        for target in node.targets:
            if isinstance(target, (ast.Tuple, ast.List)):
                held = [self.emit.namer.fresh(f"assigned_{i}_") for i in range(len(target.elts))]
                fresh = ast.Tuple([store(h) for h in held], ast.Store())
                out.append(place(ast.Assign([fresh], name(assigned)), node))
                for h, part in zip(held, target.elts, strict=True):
                    done = self.visit(place(ast.Assign([part], name(h)), node))
                    out += done if isinstance(done, list) else [done]
            else:
                done = self.visit(place(ast.Assign([target], name(assigned)), node))
                out += done if isinstance(done, list) else [done]
        return out

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if isinstance(node.target, ast.Name):
            return node
        loaded = _as_load(node.target)
        value = self.emit.helper("inplace", ast.Constant(OPERATORS[type(node.op)]), loaded, node.value)
        return self._store(node.target, value, node)

    def _store(self, target: ast.expr, value: ast.expr, at: ast.stmt) -> ast.stmt:
        """`target = value`, where target is a part of an object, as a store into the name at its root."""
        if isinstance(target, ast.Name):
            return assign(target.id, value, at)
        if isinstance(target, ast.Subscript):
            call = self.emit.helper("setitem", _as_load(target.value), self.emit.index(target.slice), value)
        elif isinstance(target, ast.Attribute):
            call = self.emit.helper("setattr_", _as_load(target.value), ast.Constant(target.attr), value)
        else:
            return place(ast.Assign([target], value), at)
        root = _root(target)
        if isinstance(target.value, ast.Name):
            return assign(target.value.id, call, at)
        if root is not None:
            # a.b[i] = v: the object at the root is the same one after the store.
            return assign(root, self.emit.helper("second", call, name(root)), at)
        return place(ast.Expr(call), at)


def _leaves(target: ast.expr) -> list[ast.expr]:
    if isinstance(target, (ast.Tuple, ast.List)):
        return [leaf for e in target.elts for leaf in _leaves(e)]
    return [target]


def _root(node: ast.expr) -> str | None:
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _as_load(node: ast.expr) -> ast.expr:
    """A copy of an assignment's target as an expression that reads it."""
    made = copy.deepcopy(node)
    if isinstance(made, (ast.Name, ast.Attribute, ast.Subscript)):
        made.ctx = ast.Load()
    return made
