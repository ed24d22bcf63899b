"""The object that rewritten code calls: every helper that `compiler/helper_names.py` lists, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploypipe.compiler.sites import Site
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging import arithmetic, branches, calls, for_loops, indexing, logic, loops, objects, truth
from deploypipe.staging.context import DeliberateRaise, current
from deploypipe.staging.frame import Frame
from deploypipe.staging.undefined import Undefined


class Helpers:
    """Control flow, calls and changes of objects, decided by the values."""

    and_ = staticmethod(logic.and_)
    or_ = staticmethod(logic.or_)
    not_ = staticmethod(truth.not_)
    compare = staticmethod(logic.compare_chain)
    arithmetic = staticmethod(arithmetic.arithmetic)
    if_ = staticmethod(branches.if_)
    ifexp = staticmethod(branches.ifexp)
    while_ = staticmethod(loops.while_)
    for_ = staticmethod(for_loops.for_)
    frame = staticmethod(Frame)
    call = staticmethod(calls.callee)
    getitem = staticmethod(indexing.getitem)
    slice = staticmethod(slice)
    setitem = staticmethod(objects.setitem)
    setattr_ = staticmethod(objects.setattr_)
    mutate = staticmethod(objects.mutate)
    pop = staticmethod(objects.pop)
    inplace = staticmethod(objects.inplace)
    undefined = staticmethod(Undefined)

    @staticmethod
    def second(first: Any, second: Any) -> Any:
        return second

    @staticmethod
    def assert_(site: Site, test: Any, message: Callable[[], Any]) -> None:
        context = current()
        pred = truth.truth(test)
        if truth.is_static(pred):
            context.note(site, "static")
            context.note_outcome(site, "true" if pred else "false")
            if not pred:
                raise AssertionError(message())
            return
        context.note(site, "check")
        try:
            text = str(message())
        except Exception:
            text = "assertion failed"
        branches.check_in_graph(truth.bool_tensor(pred), text)

    @staticmethod
    def raise_(error: Any) -> None:
        if current().capturing and current().dry:
            raise DeliberateRaise(error)
        raise error if error is not None else RuntimeError("re-raised")

    @staticmethod
    def refuse_try() -> None:
        if current().capturing:
            raise Unsupported(
                "try/except",
                "the artifact has no exceptions to catch",
                "test the condition with an if before the operation",
            )


HELPERS = Helpers()
