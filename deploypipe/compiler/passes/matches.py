"""Pass 1. `match` becomes `if` and `elif`, whose conditions may depend on data.

Patterns of values, of `None`, `True` and `False`, alternatives of these and a name for the rest become comparisons.
Where a pattern looks into a structure (a sequence, a mapping, a class), Python itself matches, on what is known while
the program is captured: the `match` only notes which case it was, and the bodies hang on that number.
"""

import ast

from deploypipe.compiler.build import Emitter, OwnScope, assign, either, name, place


def apply(function: ast.FunctionDef, emit: Emitter) -> None:
    function.body = _Matches(emit).block(function.body)


class _Matches(OwnScope):
    def visit_Match(self, node: ast.Match) -> list[ast.stmt]:
        subject = self.emit.namer.fresh("subject_")
        for case in node.cases:
            case.body = self.block(case.body)
        held = assign(subject, node.subject, node)
        if all(_is_plain(case) for case in node.cases):
            return [held, *self._compared(node.cases, subject)]
        return [held, *self._numbered(node, subject)]

    def _compared(self, cases: list[ast.match_case], subject: str) -> list[ast.stmt]:
        """The cases as a chain of conditions."""
        if not cases:
            return []
        case, rest = cases[0], cases[1:]
        test, captured = _comparison(case.pattern, subject)
        binding = [assign(captured, name(subject), case.pattern)] if captured else []
        if test is None and case.guard is None:
            return [*binding, *case.body]
        if test is None:
            assert case.guard is not None
            return [*binding, place(ast.If(case.guard, case.body, self._compared(rest, subject)), case.pattern)]
        if case.guard is not None:
            test = ast.BoolOp(ast.And(), [test, case.guard])
        return [place(ast.If(test, [*binding, *case.body], self._compared(rest, subject)), case.pattern)]

    def _numbered(self, node: ast.Match, subject: str) -> list[ast.stmt]:
        """Python matches, and notes the number of the case; the bodies are chosen by it."""
        chosen = self.emit.namer.fresh("chosen_")
        bodies = [case.body for case in node.cases]
        for number, case in enumerate(node.cases):
            case.body = [assign(chosen, ast.Constant(number), case.pattern)]
        chain: list[ast.stmt] = []
        for number, (case, body) in reversed(list(enumerate(zip(node.cases, bodies, strict=True)))):
            test = ast.Compare(name(chosen), [ast.Eq()], [ast.Constant(number)])
            chain = [place(ast.If(test, body, chain), case.pattern)]
        node.subject = place(name(subject), node.subject)
        return [assign(chosen, ast.Constant(-1), node), node, *chain]


def _is_plain(case: ast.match_case) -> bool:
    """Whether a case can be written as a comparison. A name bound by a pattern that may fail must not be bound before
    the guard that reads it, so such a case is left to Python."""
    match case.pattern:
        case ast.MatchAs(pattern=ast.pattern() as inner):
            return case.guard is None and _is_constant(inner)
        case ast.MatchAs():
            return True
    return _is_constant(case.pattern)


def _is_constant(pattern: ast.pattern) -> bool:
    match pattern:
        case ast.MatchValue() | ast.MatchSingleton():
            return True
        case ast.MatchOr():
            return all(map(_is_constant, pattern.patterns))
    return False


def _comparison(pattern: ast.pattern, subject: str) -> tuple[ast.expr | None, str | None]:
    """The condition under which a plain pattern matches, None for always; and the name that it binds."""
    match pattern:
        case ast.MatchValue():
            return ast.Compare(name(subject), [ast.Eq()], [pattern.value]), None
        case ast.MatchSingleton():
            return ast.Compare(name(subject), [ast.Is()], [ast.Constant(pattern.value)]), None
        case ast.MatchOr():
            return either([test for p in pattern.patterns if (test := _comparison(p, subject)[0]) is not None]), None
        case ast.MatchAs(pattern=ast.pattern() as inner):
            return _comparison(inner, subject)[0], pattern.name
        case ast.MatchAs():
            return None, pattern.name
    raise AssertionError(f"{type(pattern).__name__} is no plain pattern")
