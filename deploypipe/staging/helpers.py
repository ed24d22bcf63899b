"""The object that rewritten code knows as `ag__`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging import builtins as replacements
from deploypipe.staging import calls, truth
from deploypipe.staging.arithmetic import arithmetic
from deploypipe.staging.context import DeliberateRaise, current
from deploypipe.staging.lists import CountingList, GrowingList
from deploypipe.staging.loops import for_, while_
from deploypipe.staging.packing import number_tensor
from deploypipe.staging.regions import Block, Get, OtherSide, Put, stage_if
from deploypipe.staging.sequences import is_symbolic
from deploypipe.staging.templates import number_kind
from deploypipe.staging.undefined import Undefined

IN_PLACE = {"ifloordiv": "i//", "imod": "i%", "ipow": "i**"}


class Helpers:
    """Control flow, calls and changes of objects, decided by the values."""

    and_ = staticmethod(truth.and_)
    or_ = staticmethod(truth.or_)
    not_ = staticmethod(truth.not_)
    arithmetic = staticmethod(arithmetic)
    call = staticmethod(calls.call)
    for_ = staticmethod(for_)
    while_ = staticmethod(while_)
    undefined = staticmethod(Undefined)
    slice = staticmethod(slice)

    def if_(
        self,
        site: int,
        test: Any,
        then: Block,
        orelse: Block,
        get: Get,
        put: Put,
        names: tuple[str, ...],
        live: tuple[str, ...],
    ) -> None:
        context = current()
        pred = truth.truth(test)
        if truth.is_static(pred):
            context.note(site, "static")
            context.take(site, "true" if pred else "false")
            (then if pred else orelse)()
            return
        context.note(site, "cond")
        tensor = truth.as_tensor(pred)
        try:
            with context.at(site):
                stage_if(tensor, then, orelse, get, put, names, live)
        except OtherSide as met:
            check(tensor if met.then_survives else torch.logical_not(tensor), str(met.error))
            context.note(site, "check")
            (then if met.then_survives else orelse)()

    def ifexp(self, site: int, test: Any, then: Callable[[], Any], orelse: Callable[[], Any]) -> Any:
        value: Any = None

        def first() -> None:
            nonlocal value
            value = then()

        def second() -> None:
            nonlocal value
            value = orelse()

        def put(values: tuple[Any, ...]) -> None:
            nonlocal value
            (value,) = values

        self.if_(
            site,
            test,
            first,
            second,
            lambda: (value,),
            put,
            ("the value of the expression",),
            ("the value of the expression",),
        )
        return value

    def compare(self, left: Any, *pairs: Any) -> Any:
        """`a < b <= c`, and `in`: pairs of an operator and a deferred operand."""
        symbol, right, rest = pairs[0], pairs[1](), pairs[2:]
        result = contains(right, left, symbol) if symbol in ("in", "not in") else truth.compare(symbol, left, right)
        if not rest:
            return result
        return truth.and_(lambda: result, lambda: self.compare(right, *rest))

    def getitem(self, value: Any, index: Any) -> Any:
        if current().capturing:
            return calls.getitem(value, index)
        return value[index]

    def setitem(self, value: Any, index: Any, item: Any) -> Any:
        calls.check_change(value, "an item assignment")
        if current().capturing and isinstance(value, list) and isinstance(index, (Tensor, torch.SymInt)):
            raise Unsupported(
                "an item assignment", "the index into a list depends on data", "use a tensor instead of a list"
            )
        if isinstance(value, Tensor) and current().capturing:
            index = calls.tensor_index(index)
            if number_kind(item) is not None:
                item = (
                    number_tensor(item, value.dtype) if is_symbolic(item) else torch.full((), item, dtype=value.dtype)
                )
        value[index] = item
        return value

    def setattr_(self, value: Any, name: str, item: Any) -> Any:
        context = current()
        if isinstance(value, nn.Module):
            raise Unsupported(
                f"assignment to attribute `{name}` of {type(value).__name__}",
                "the artifact has no memory between calls",
                "return the new value, or keep it in a local variable",
            )
        if not isinstance(value, Tensor) and id(value) not in context.created:
            raise Unsupported(
                f"assignment to attribute `{name}` of a {type(value).__name__}",
                "the object outlives the call and the artifact cannot change it",
                "build a new object inside forward",
            )
        if context.capturing and context.staged:
            raise Unsupported(
                f"assignment to attribute `{name}`",
                "it happens inside a branch or loop that depends on data",
                "use a local variable",
            )
        setattr(value, name, item)
        return value

    def mutate(self, value: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, (list, dict, set, GrowingList, CountingList)):
            calls.check_change(value, f"{type(value).__name__}.{method}")
            getattr(value, method)(*args, **kwargs)
            return value
        result = self.call(getattr(value, method))(*args, **kwargs)
        del result
        return value

    def pop(self, value: Any, *args: Any) -> tuple[Any, Any]:
        return value, value.pop(*args)

    def inplace(self, symbol: str, left: Any, right: Any) -> Any:
        return (
            arithmetic(IN_PLACE[symbol], left, right) if symbol in IN_PLACE else getattr(operator, symbol)(left, right)
        )

    def second(self, first: Any, second: Any) -> Any:
        return second

    def assert_(self, site: int, test: Any, message: Callable[[], Any]) -> None:
        context = current()
        pred = truth.truth(test)
        if truth.is_static(pred):
            context.note(site, "static")
            context.take(site, "true" if pred else "false")
            if not pred:
                raise AssertionError(message())
            return
        context.note(site, "check")
        try:
            text = str(message())
        except Exception:
            text = "assertion failed"
        check(truth.as_tensor(pred), text)

    def raise_(self, error: Any) -> None:
        if current().capturing and current().dry:
            raise DeliberateRaise(error)
        raise error if error is not None else RuntimeError("re-raised")

    def refuse_try(self) -> None:
        if current().capturing:
            raise Unsupported(
                "try/except",
                "the artifact has no exceptions to catch",
                "test the condition with an if before the operation",
            )


def contains(container: Any, item: Any, symbol: str) -> Any:
    if isinstance(container, Tensor):
        found = (container == item).any()
    elif isinstance(item, (Tensor, torch.SymInt, torch.SymFloat)) and isinstance(container, (list, tuple, set, range)):
        found = truth.or_(*[lambda v=v: item == v for v in container]) if len(container) else False
    else:
        found = item in container
    return truth.not_(found) if symbol == "not in" else found


def check(pred: Tensor, message: str) -> None:
    """The author's assertion, in the graph."""
    if current().dry:
        pred.clone()  # the recorder must know that the assertion reads it
        return
    torch._assert_async(pred, message)


HELPERS = Helpers()
calls.REPLACEMENTS.append(replacements)
