"""Rewritten functions behave as the author's: each has its own closure and defaults, and names mean what they meant."""

import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from deploypipe.compiler.factory import factory_of, is_rewritten
from deploypipe.staging.helpers import HELPERS


def rewritten(fn: Callable[..., Any]) -> Callable[..., Any]:
    assert isinstance(fn, FunctionType)
    made = factory_of(fn).instantiate(fn, HELPERS)
    assert is_rewritten(made.__code__) and not is_rewritten(fn.__code__)
    return made


def test_functions_made_in_a_loop_have_their_own_defaults() -> None:
    made = []
    for step in range(3):

        def add(x: int, step: int = step, *, twice: int = 2 * step) -> int:
            return x + step + twice

        made.append(rewritten(add))
    assert [add(10) for add in made] == [10, 13, 16]
    assert len({add.__code__ for add in made}) == 1


def test_functions_made_in_a_function_have_their_own_closure() -> None:
    def make(step: int) -> Callable[[int], int]:
        def add(x: int) -> int:
            if x > 0:
                x = x + step
            return x

        return add

    assert [rewritten(make(step))(10) for step in (1, 2)] == [11, 12]


def names_itself(n: int) -> int:
    return 1 if n == 0 else n * names_itself(n - 1)


def test_a_function_that_names_itself() -> None:
    assert rewritten(names_itself)(4) == 24

    def inner(n: int) -> int:
        return 1 if n == 0 else n * inner(n - 1)

    assert rewritten(inner)(4) == 24


def annotated(x: int, up: bool) -> int:
    y: int
    if up:
        y: int = x + 1  # type: ignore[no-redef]
    else:
        y = x - 1
    total: int = 0
    for i in range(3):
        step: int = i
        total += step
    return y + total


def test_annotated_names() -> None:
    assert [rewritten(annotated)(10, up) for up in (True, False)] == [annotated(10, True), annotated(10, False)]


def shares_a_name_with_a_function_inside(x: int) -> int:
    def count(n: int) -> int:
        total = 0
        for i in range(n):
            total += i
        return total

    total = 0
    for i in range(x):
        total += count(i)
    return total


def test_a_loop_variable_that_a_function_inside_has_too() -> None:
    assert rewritten(shares_a_name_with_a_function_inside)(5) == shares_a_name_with_a_function_inside(5)


def names_of_the_compiler(x: list[int]) -> list[int]:
    helpers_ = sites_ = result_ = 1
    item_, values_ = 2, []
    for item_ in x:
        if item_ > helpers_:
            values_.append(item_ + sites_ + result_)
        else:
            returned_ = then_1_ = broken_1_ = item_
            values_.append(returned_ + then_1_ + broken_1_)
        if len(values_) > 3:
            break
    return [items_ for items_ in values_ if items_]


def test_names_that_the_compiler_would_use() -> None:
    for x in ([0, 1, 2, 3], [5, 6], list(range(10))):
        assert rewritten(names_of_the_compiler)(x) == names_of_the_compiler(x)


def matches(x: Any, up: bool) -> Any:
    if up:
        match x:
            case 1 | 2:
                return "few"
            case None:
                return "none"
            case 10 as ten if up:
                return ten
            case [a, *rest] if len(rest) > 1:
                return a, rest
            case {"k": value, **others}:
                return value, others
            case str(text):
                x = text + "!"
            case _:
                pass
    return x


def compares(x: Any) -> Any:
    for turn in range(3):
        match x:
            case 1:
                break
            case 2:
                x = 1
                continue
            case 4 as four:
                return four, turn
            case n if n > 100:
                return n
            case _:
                x = x - 1
    return x, turn


@pytest.mark.parametrize("x", [1, 2, 3, None, 10, [1], [1, 2, 3], {"k": 1, "l": 2}, "text", 3.5])
def test_match_of_every_kind(x: Any) -> None:
    for up in (True, False):
        assert rewritten(matches)(x, up) == matches(x, up)


@pytest.mark.parametrize("x", [1, 2, 4, 5, 7, 101])
def test_match_with_jumps(x: int) -> None:
    assert rewritten(compares)(x) == compares(x)


def deletes(x: list[int], up: bool) -> Any:
    y, z = x[0], list(x)
    if up:
        del y, z[0]
        y = 100
    del z[-1:]
    return y, z


def uses_deleted(up: bool) -> int:
    y = 1
    if up:
        del y
    return y


def test_del_of_names_and_items() -> None:
    for up in (True, False):
        assert rewritten(deletes)([1, 2, 3], up) == deletes([1, 2, 3], up)
    assert rewritten(uses_deleted)(False) == 1
    with pytest.raises(UnboundLocalError):
        rewritten(uses_deleted)(True) + 1


def finishes(x: list[int]) -> Any:
    log: list[str] = []
    for item in x:
        try:
            if item == 0:
                continue
            if item > 5:
                return log, item
        except ValueError:
            log.append("never")
        else:
            log.append(f"else {item}")
        finally:
            if item:
                log.append(f"finally {item}")
    return log


def test_try_and_finally() -> None:
    for x in ([1, 0, 2], [1, 6, 2], []):
        assert rewritten(finishes)(x) == finishes(x)


class Base:
    def value(self) -> int:
        return 1


class Derived(Base):
    def value(this) -> int:
        if this:
            return super().value() + 1
        return 0


def test_super_where_self_has_another_name() -> None:
    assert rewritten(Derived.value)(Derived()) == 2


def test_factories_are_made_once_by_any_number_of_threads() -> None:
    def busy(x: int) -> int:
        return x + 1

    found = []
    threads = [threading.Thread(target=lambda: found.append(factory_of(busy))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(factory) for factory in found}) == 1
