"""The rewriting steps, on source text in and out."""

import ast
import textwrap

import pytest

from deploypipe.compiler.build import Emitter
from deploypipe.compiler.namer import Namer
from deploypipe.compiler.passes import comprehensions, expressions, jumps, mutations, walrus
from deploypipe.compiler.rewrite import rewrite_function
from deploypipe.compiler.scopes import Liveness, names_bound, names_captured, names_read


def parse(source: str) -> ast.FunctionDef:
    node = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def text(function: ast.FunctionDef) -> str:
    return ast.unparse(ast.fix_missing_locations(function))


def emitter(function: ast.FunctionDef) -> Emitter:
    return Emitter(Namer(function), "f.py", function.name)


def wholly_rewritten(source: str) -> ast.FunctionDef:
    function = parse(source)
    rewrite_function(function, emitter(function), textwrap.dedent(source), {})
    return function


def rewritten(rewrite, body: str) -> str:
    function = parse("def f(x):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    "))
    rewrite(function, emitter(function))
    return textwrap.dedent(text(function).partition("\n")[2]).strip()


def expect(source: str) -> str:
    return ast.unparse(ast.parse(textwrap.dedent(source)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("if (n := x + 1) > 2:\n    y = n", "n = x + 1\nif n > 2:\n    y = n", id="if"),
        pytest.param(
            "while (n := g(x)) > 0:\n    x = n",
            "while True:\n    n = g(x)\n    if not n > 0:\n        break\n    x = n",
            id="while",
        ),
    ],
)
def test_walrus_becomes_an_assignment_before(before, after):
    assert rewritten(lambda function, emit: walrus.apply(function), before) == expect(after)


def test_comprehension_becomes_a_loop():
    after = rewritten(comprehensions.apply, "y = [t * 2 for t in x if t > 0]")
    assert "for t in source_:" in after
    assert "if t > 0:" in after
    assert "items_.append(t * 2)" in after
    assert after.endswith("y = comprehension_2_1(x)")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("y.append(x)", "y = helpers_.mutate(y, 'append', x)", id="append"),
        pytest.param("v = y.pop()", "(y, v) = helpers_.pop(y)", id="pop"),
        pytest.param("x[i] = 1", "x = helpers_.setitem(x, i, 1)", id="item"),
        pytest.param("x[:, 1:] = v",
                     "x = helpers_.setitem(x, (helpers_.slice(None, None, None), helpers_.slice(1, None, None)), v)",
                     id="slice"),
        pytest.param("x[0] += 1", "x = helpers_.setitem(x, 0, helpers_.inplace('iadd', x[0], 1))", id="augmented item"),
        pytest.param("self.n = x", "self = helpers_.setattr_(self, 'n', x)", id="attribute"),
        pytest.param("x += 1", "x += 1", id="augmented name stays"),
    ],
)  # fmt: skip
def test_changes_in_place_become_assignments(before, after):
    assert rewritten(mutations.apply, before) == expect(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            "if x > 0:\n    return 1\ny = x\nreturn y",
            "if x > 0:\n    result_ = 1\nelse:\n    y = x\n    result_ = y\nreturn result_",
            id="early return",
        ),
        pytest.param(
            "while x > 0:\n    if x == 5:\n        break\n    x = x - 1\nreturn x",
            """
            broken_1_ = False
            while not broken_1_ and x > 0:
                if x == 5:
                    broken_1_ = True
                else:
                    x = x - 1
            result_ = x
            return result_
            """,
            id="break",
        ),
        pytest.param(
            "for t in x:\n    if t > 0:\n        continue\n    y = t\nreturn y",
            "for t in x:\n    if t > 0:\n        pass\n    else:\n        y = t\nresult_ = y\nreturn result_",
            id="continue",
        ),
        pytest.param(
            "for t in x:\n    if t > 0:\n        return t\nreturn x",
            """
            returned_ = False
            for t in x:
                if t > 0:
                    result_ = t
                    returned_ = True
            if not returned_:
                result_ = x
                returned_ = True
            return result_
            """,
            id="return in a loop",
        ),
        pytest.param(
            "while x > 0:\n    x = g(x)\n    if x == 3:\n        break\nelse:\n    x = 0\nreturn x",
            """
            broken_1_ = False
            while not broken_1_ and x > 0:
                x = g(x)
                if x == 3:
                    broken_1_ = True
            if not broken_1_:
                x = 0
            result_ = x
            return result_
            """,
            id="loop else",
        ),
    ],
)
def test_jumps_become_flags(before, after):
    assert rewritten(jumps.apply, before) == expect(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("y = a and b", "y = helpers_.and_(lambda: a, lambda: b)", id="and"),
        pytest.param("y = not a", "y = helpers_.not_(a)", id="not"),
        pytest.param("y = 0 < a <= b", "y = helpers_.compare(0, '<', lambda: a, '<=', lambda: b)", id="chain"),
        pytest.param("y = a in b", "y = helpers_.compare(a, 'in', lambda: b)", id="in"),
        pytest.param("y = a < b", "y = a < b", id="one comparison stays"),
        pytest.param("y = a if c else b", "y = helpers_.ifexp(sites_[0], c, lambda: a, lambda: b)", id="ternary"),
        pytest.param("y = g(a)", "y = helpers_.call(g)(a)", id="call"),
        pytest.param("y = x[:, 0]", "y = x[:, 0]", id="constant subscript stays"),
        pytest.param("y = x[:, t]", "y = helpers_.getitem(x, (helpers_.slice(None, None, None), t))", id="subscript"),
        pytest.param("assert a, 'm'", "helpers_.assert_(sites_[0], a, lambda: 'm')", id="assert"),
    ],
)
def test_truth_values_and_calls_go_through_helpers(before, after):
    def rewrite(function, emit):
        expressions.apply(function, emit, lambda callee: False)

    assert rewritten(rewrite, before) == expect(after)


def test_blocks_share_the_names_they_write_and_know_which_live_on():
    function = wholly_rewritten(
        "def f(x):\n    if x:\n        y = 1\n        z = y\n    else:\n        z = 2\n    return z"
    )
    after = text(function)
    assert "nonlocal y, z" in after
    assert "('y', 'z'), ('z',), ())" in after


def test_lines_stay_those_of_the_author():
    function = wholly_rewritten("def f(x):\n    if x:\n        return g(\n            x)\n    return x")
    lines = {n.lineno for n in ast.walk(function) if isinstance(n, ast.Call) and "g" in ast.unparse(n.func)}
    assert 3 in lines
    assert max(n.lineno for n in ast.walk(function) if hasattr(n, "lineno")) == 5


def test_names_read_written_and_captured():
    function = parse("def f(x):\n    y = [q for q in x]\n    g = lambda: z\n    for i, (j, k) in y:\n        w += 1\n")
    assert {"y", "g", "i", "j", "k", "w"} <= names_bound(function.body)
    assert {"x", "y", "z", "w"} <= names_read(function.body)
    assert "z" in names_captured(function)


def test_liveness_goes_around_loops():
    function = parse("def f(x, n):\n    a = 1\n    while n:\n        b = a\n        a = x\n    return b")
    loop = function.body[1]
    liveness = Liveness(function.body, set())
    assert "a" in liveness.head[loop]
    assert liveness.after[loop] == {"b"}
