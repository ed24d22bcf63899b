"""Pass 5. `return`, `break` and `continue` become flags, so that every block has one way in and one way out.

`if c: return a` followed by a rest puts the rest into the `else`; where that is not possible (a jump out of a loop, or
nested deeper) a flag records the jump and guards what follows. A function ends in its only `return`. A loop tests
its flags first: `while` in its condition, `for` through `stop_flags`.
"""

import ast
from dataclasses import dataclass, field

from deploypipe.compiler.build import Emitter, assign, name, none_of, place
from deploypipe.compiler.helper_names import RETURNED_VALUE
from deploypipe.compiler.scopes import stop_flags, walk_scope


def apply(function: ast.FunctionDef, emit: Emitter) -> None:
    body = function.body
    if any(isinstance(n, ast.Return) for n in walk_scope(body)) or _has_loop_jump(body):
        if not _always_returns(body):
            body = [*body, place(ast.Return(ast.Constant(None)), body[-1])]
        lowering = _Jumps(emit)
        done = lowering.block(body, None)
        start = [assign(lowering.returned, ast.Constant(False), body[0])] if lowering.asks_returned(done.body) else []
        end = place(ast.Return(name(lowering.result)), body[-1])
        function.body = [*start, *done.body, end]


def _has_loop_jump(body: list[ast.stmt]) -> bool:
    return any(isinstance(n, (ast.Break, ast.Continue)) or getattr(n, "orelse", None) for n in walk_scope(body))


def _always_returns(body: list[ast.stmt]) -> bool:
    last = body[-1]
    match last:
        case ast.Return() | ast.Raise():
            return True
        case ast.If():
            return bool(last.orelse) and _always_returns(last.body) and _always_returns(last.orelse)
        case ast.With():
            return _always_returns(last.body)
        case ast.While():
            endless = isinstance(last.test, ast.Constant) and bool(last.test.value)
            return endless and not any(isinstance(n, ast.Break) for n in walk_scope(last.body))
    return False


@dataclass
class Lowered:
    """A lowered block: the flags it may have set, and whether it surely jumps."""

    body: list[ast.stmt]
    flags: set[str] = field(default_factory=set)
    surely: bool = False


@dataclass
class LoopFlags:
    broken: str
    skipped: str


class _Jumps:
    def __init__(self, emit: Emitter) -> None:
        self.namer = emit.namer
        self.result = emit.namer.fresh("result_", RETURNED_VALUE)
        self.returned = emit.namer.fresh("returned_")
        self.loops = 0

    def asks_returned(self, body: list[ast.stmt]) -> bool:
        reads = any(
            (isinstance(n, ast.Name) and n.id == self.returned and isinstance(n.ctx, ast.Load))
            or self.returned in stop_flags(n)
            for n in walk_scope(body)
        )
        if not reads:
            _drop_stores(body, self.returned)
        return reads

    def block(self, body: list[ast.stmt], loop: LoopFlags | None) -> Lowered:
        out: list[ast.stmt] = []
        for position, statement in enumerate(body):
            rest = body[position + 1 :]
            done = self.statement(statement, loop)
            if not done.flags:
                out += done.body
                continue
            if done.surely or not rest:
                return Lowered([*out, *done.body], done.flags, done.surely)
            tail = self.block(rest, loop)
            flags, node = done.flags | tail.flags, done.body[-1]
            if isinstance(statement, ast.If) and isinstance(node, ast.If) and self._absorb(statement, node, tail, loop):
                return Lowered([*out, *done.body], flags, tail.surely)
            guarded = place(ast.If(none_of(done.flags), tail.body, []), rest[0])
            return Lowered([*out, *done.body, guarded], flags, tail.surely)
        return Lowered(out)

    def _absorb(self, original: ast.If, node: ast.If, tail: Lowered, loop: LoopFlags | None) -> bool:
        """Put what follows an `if` into the side that falls through, where the other side surely jumps."""
        then, orelse = node.then_block, node.else_block  # type: ignore[attr-defined]
        if then.surely and not orelse.flags:
            node.orelse = [*node.orelse, *tail.body]
            return True
        if orelse.surely and not then.flags:
            node.body = [*node.body, *tail.body]
            return True
        return False

    def statement(self, node: ast.stmt, loop: LoopFlags | None) -> Lowered:
        match node:
            case ast.Return():
                value = node.value or ast.Constant(None)
                body = [assign(self.result, value, node), assign(self.returned, ast.Constant(True), node)]
                return Lowered(body, {self.returned}, True)
            case ast.Break():
                assert loop is not None
                return Lowered([assign(loop.broken, ast.Constant(True), node)], {loop.broken}, True)
            case ast.Continue():
                assert loop is not None
                return Lowered([assign(loop.skipped, ast.Constant(True), node)], {loop.skipped}, True)
            case ast.If():
                then, orelse = self.block(node.body, loop), self.block(node.orelse, loop)
                node.body, node.orelse = then.body or [place(ast.Pass(), node)], orelse.body
                node.then_block, node.else_block = then, orelse  # type: ignore[attr-defined]
                return Lowered([node], then.flags | orelse.flags, then.surely and orelse.surely)
            case ast.While() | ast.For():
                return self.loop(node)
            case ast.With():
                inner = self.block(node.body, loop)
                node.body = inner.body
                return Lowered([node], inner.flags, inner.surely)
            case ast.Try():
                blocks = [self.block(node.body, loop), self.block(node.orelse, loop), self.block(node.finalbody, loop)]
                node.body, node.orelse, node.finalbody = (b.body for b in blocks)
                if blocks[0].flags and node.orelse:  # a jump out of the body passes by the `else`
                    node.orelse = [place(ast.If(none_of(blocks[0].flags), node.orelse, []), node.orelse[0])]
                for handler in node.handlers:
                    blocks.append(self.block(handler.body, loop))
                    handler.body = blocks[-1].body
                return Lowered([node], set().union(*(b.flags for b in blocks)))
            case ast.Raise():
                return Lowered([node])
        return Lowered([node])

    def loop(self, node: ast.While | ast.For) -> Lowered:
        self.loops += 1
        loop = LoopFlags(self.namer.fresh(f"broken_{self.loops}_"), self.namer.fresh(f"skipped_{self.loops}_"))
        inner = self.block(node.body, loop)
        before: list[ast.stmt] = []
        body = inner.body
        if loop.skipped in inner.flags:
            if _reads(body, loop.skipped):
                body = [assign(loop.skipped, ast.Constant(False), node), *body]
            else:
                _drop_stores(body, loop.skipped)
        leaving = inner.flags & {loop.broken, self.returned}
        if loop.broken in leaving:
            before.append(assign(loop.broken, ast.Constant(False), node))
        outward = inner.flags & {self.returned}
        node.body = body or [place(ast.Pass(), node)]
        orelse, node.orelse = node.orelse, []
        if leaving and isinstance(node, ast.While):
            node.test = place(ast.BoolOp(ast.And(), [none_of(leaving), node.test]), node.test)
        elif leaving:
            node.stop_flags = tuple(sorted(leaving))  # type: ignore[union-attr]
        after: list[ast.stmt] = []
        if orelse:
            lowered = self.block(orelse, None)
            outward |= lowered.flags
            after = [place(ast.If(none_of(leaving), lowered.body, []), orelse[0])] if leaving else lowered.body
        return Lowered([*before, node, *after], outward)


def _reads(body: list[ast.stmt], flag: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == flag and isinstance(n.ctx, ast.Load) for n in walk_scope(body))


def _drop_stores(body: list[ast.stmt], flag: str) -> None:
    """Remove the assignments to a flag that nothing reads; an emptied block keeps a `pass`."""
    for node in [None, *walk_scope(body)]:
        for part in ("body", "orelse", "finalbody"):
            block = body if node is None and part == "body" else getattr(node, part, None)
            if not isinstance(block, list) or (node is not None and isinstance(node, (ast.Lambda, ast.FunctionDef))):
                continue
            kept = [s for s in block if not (isinstance(s, ast.Assign) and _is_store(s, flag))]
            if len(kept) < len(block):
                block[:] = kept or ([ast.copy_location(ast.Pass(), block[0])] if part == "body" else [])


def _is_store(node: ast.Assign, flag: str) -> bool:
    return isinstance(node.targets[0], ast.Name) and node.targets[0].id == flag
