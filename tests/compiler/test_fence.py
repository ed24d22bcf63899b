"""The fence: what the passes do not support is refused before any of them runs, with the line and a caret under it."""

import ast
import textwrap

import pytest

from deploypipe.compiler.fence import check_syntax
from deploypipe.compiler.unsupported import Unsupported


def refusal(body: str) -> Unsupported:
    text = "def f(self, x):\n" + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n"
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    with pytest.raises(Unsupported) as caught:
        check_syntax(node, "model.py", text)
    return caught.value


@pytest.mark.parametrize(
    ("body", "construct", "line", "marked"),
    [
        pytest.param("global n\nn = x", "global n", 2, "global n", id="global"),
        pytest.param("nonlocal n\nn = x", "nonlocal n", 2, "nonlocal n", id="nonlocal"),
        pytest.param("y = x\nyield y", "f()", 3, "yield y", id="yield"),
        pytest.param("def g():\n    yield x\nreturn g", "g()", 3, "yield x", id="yield in a function inside"),
        pytest.param("async def g():\n    pass", "`async`", 2, "async def g():", id="async def"),
        pytest.param("del x, self.cache", "`del self.cache`", 2, "del x, self.cache", id="del of an attribute"),
        pytest.param("return locals()", "`locals(…)`", 2, "locals()", id="locals"),
        pytest.param("if x and (n := x.sum()):\n    return n", "`n := …`", 2, "n := x.sum()", id="lazy walrus"),
        pytest.param("y = [(n := t) for t in x]", "`n := …`", 2, "n := t", id="walrus in a comprehension"),
        pytest.param("try:\n    y = x\nfinally:\n    return x", "`return` in `finally`", 5, "return x", id="finally"),
        pytest.param(
            "for t in x:\n    try:\n        y = t\n    finally:\n        break",
            "`break` in `finally`", 6, "break", id="break in finally",
        ),
        pytest.param("try:\n    y = x\nexcept* E:\n    y = 1", "`except*`", 2, "try:", id="except*"),
    ],
)  # fmt: skip
def test_refused_with_a_caret(body: str, construct: str, line: int, marked: str) -> None:
    error = refusal(body)
    assert error.construct == construct
    assert error.where == f"model.py:{line}"
    assert error.why and error.remedy
    source, caret = error.excerpt.splitlines()
    start = caret.index("^")
    assert source[start:].startswith(marked)
    assert caret.count("^") == len(marked)


def test_the_first_of_several_is_named() -> None:
    assert refusal("y = x\ndel self.a\nglobal n").where == "model.py:3"


@pytest.mark.parametrize(
    "body",
    [
        "match x:\n    case 1:\n        return x\n    case [a, *b]:\n        return a",
        "y = x\ndel y",
        "for t in x:\n    try:\n        y = t\n    finally:\n        for u in t:\n            break",
        "def g():\n    nonlocal x\n    x = 1\nreturn g",
        "if (n := x.sum()) > 0:\n    return n",
        "with self.scope():\n    return x",
        "return {k: v for k, v in x.items()}",
    ],
)
def test_what_the_passes_know_comes_through(body: str) -> None:
    text = "def f(self, x):\n" + textwrap.indent(body, "    ")
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    check_syntax(node, "model.py", text)
