"""Pass 3. List comprehensions, and generators given to a function, become loops in a local function.

`[f(t) for t in items if c]` is a loop with a growing list, and from here on it is treated as one.
"""

import ast

from deploypipe.compiler.build import Emitter, arguments, assign, name, place


def apply(function: ast.FunctionDef, emit: Emitter) -> None:
    pass_ = _Comprehensions(emit)
    function.body = pass_.block(function.body)


class _Comprehensions(ast.NodeTransformer):
    def __init__(self, emit: Emitter) -> None:
        self.namer = emit.namer
        self.count = 0
        self.pending: list[ast.stmt] = []

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for statement in body:
            outer, self.pending = self.pending, []
            done = self.visit(statement)
            out += [*self.pending, done]
            self.pending = outer
        return out

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(node, field, self.block(value))
            elif isinstance(value, list):
                setattr(node, field, [self.visit(v) if isinstance(v, ast.AST) else v for v in value])
            elif isinstance(value, ast.AST):
                setattr(node, field, self.visit(value))
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node  # a nested function gets its own run

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        return node

    def visit_SetComp(self, node: ast.SetComp) -> ast.AST:
        return node

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        # A lone generator argument is consumed by the call: a list in its place gives the same values.
        if len(node.args) == 1 and not node.keywords and isinstance(node.args[0], ast.GeneratorExp):
            generator = node.args[0]
            node.args[0] = place(ast.ListComp(generator.elt, generator.generators), generator)
        return self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        if any(g.is_async for g in node.generators):
            return node
        self.count += 1
        made = self.namer.fresh(f"comprehension_{node.lineno}_{self.count}")
        items, source = self.namer.fresh("items_"), self.namer.fresh("source_")
        body: list[ast.stmt] = [ast.Expr(ast.Call(ast.Attribute(name(items), "append", ast.Load()), [node.elt], []))]
        for generator in reversed(node.generators):
            for condition in reversed(generator.ifs):
                body = [ast.If(condition, body, [])]
            body = [ast.For(generator.target, generator.iter, body, [])]
        # The first iterable is evaluated in the scope around, as Python does.
        first = node.generators[0].iter
        body[0].iter = name(source)  # type: ignore[attr-defined]
        start = assign(items, ast.List([], ast.Load()), node)
        definition = ast.FunctionDef(made, arguments([source]), [start, *body, ast.Return(name(items))], [])
        self.pending.append(place(definition, node))
        return place(ast.Call(name(made), [self.visit(first)], []), node)
