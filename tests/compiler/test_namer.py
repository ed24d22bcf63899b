"""Names that the compiler makes are names that the function does not know."""

import ast

from deploypipe.compiler.namer import Namer


def namer(source: str) -> Namer:
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return Namer(node)


def test_a_wish_that_is_free_is_granted_once() -> None:
    names = namer("def f(x): return x")
    assert [names.fresh("item_"), names.fresh("item_"), names.fresh("item_")] == ["item_", "item_1", "item_2"]


def test_every_kind_of_name_is_taken() -> None:
    names = namer("""
def f(a_, *b_, c_=1, **d_):
    import e_.sub as g_, h_.sub
    global i_
    def j_(k_): l_
    try: pass
    except E as m_: pass
    match a_:
        case {"k": n_, **o_}: pass
        case [*p_]: pass
    return [q_ for q_ in a_]
""")
    for name in "abcdghijklmnopq":
        assert names.fresh(f"{name}_") == f"{name}_1", name


def test_a_label_is_what_messages_call_a_name() -> None:
    names = namer("def f(result_): return result_")
    assert names.label(names.fresh("result_", "the returned value")) == "the returned value"
    assert names.label("result_") == "result_"
