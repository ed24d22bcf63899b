"""How an author writes the size of an axis, and what limits say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploypipe.contract.sizes import Axis, broken_limits, parse_axis, symbol_value

WRITTEN = [
    ("batch", Axis("batch")),
    ("16*h", Axis("h", 16)),
    ("seq:1..512", Axis("seq", 1, 1, 512)),
    ("seq:2..", Axis("seq", 1, 2, None)),
    ("2 * w:..8", Axis("w", 2, None, 8)),
]


@pytest.mark.parametrize(("text", "axis"), WRITTEN, ids=[text for text, _ in WRITTEN])
def test_an_axis_is_read(text: str, axis: Axis) -> None:
    assert parse_axis(text) == axis


@pytest.mark.parametrize("text", ["", "1", "a b", "0*h", "h*2", "seq:8..2", "seq:a..b"])
def test_what_is_no_axis_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size|holds no size"):
        parse_axis(text)


@given(st.integers(1, 64), st.integers(0, 10_000))
def test_a_multiple_has_a_value_where_it_divides(multiple: int, size: int) -> None:
    expected = None if size % multiple else ("h", size // multiple)
    assert symbol_value(Axis("h", multiple).shown, size) == expected


LIMITS = [
    ("seq <= 64", {"seq": 64}, {"seq": 65}),
    ("h % 2 == 0", {"h": 4}, {"h": 5}),
    ("rows != columns", {"rows": 1, "columns": 2}, {"rows": 2, "columns": 2}),
    ("a >= 2 and a <= 4", {"a": 3}, {"a": 5}),
    ("min(64, a) == a", {"a": 64}, {"a": 65}),
    ("(a*b) == (4*(b // 2))", {"a": 2, "b": 2}, {"a": 3, "b": 2}),
]


@pytest.mark.parametrize(("limit", "inside", "outside"), LIMITS, ids=[limit for limit, *_ in LIMITS])
def test_a_limit_holds_or_is_broken(limit: str, inside: dict[str, int], outside: dict[str, int]) -> None:
    assert broken_limits([limit], inside) == []
    assert broken_limits([limit], outside) == [limit]


def test_a_limit_of_a_symbol_without_a_value_is_not_judged() -> None:
    assert broken_limits(["a <= b"], {"a": 9}) == []


def test_a_limit_is_no_code() -> None:
    with pytest.raises(ValueError, match="no limit"):
        broken_limits(["__import__('os').getpid() == a"], {"a": 1, "__import__": 1})


def test_a_limit_that_has_no_value_does_not_hold() -> None:
    assert broken_limits(["8 % (n // 4) == 0"], {"n": 2}) == ["8 % (n // 4) == 0"]
    assert not broken_limits(["8 % (n // 4) == 0"], {"n": 8})
