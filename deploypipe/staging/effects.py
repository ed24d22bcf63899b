"""What Python code does beside computing while it is traced: what it prints is dropped, and random numbers of Python's
and the time are refused."""

from __future__ import annotations

import builtins
import contextlib
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import StagingContext
from deploypipe.staging.outside import OUTSIDE, REMEDY
from deploypipe.torch_compat.tracing import distributions_unchecked, modules_moved_where_needed

PRINTED = "what forward prints or logs is not in the artifact"
CHANGING: dict[ModuleType, tuple[str, ...]] = {
    random: ("random", "uniform", "randint", "randrange", "choice", "choices", "sample", "shuffle", "gauss",
             "normalvariate", "getrandbits"),
    time: ("time", "time_ns", "monotonic", "perf_counter"),
    np.random: ("rand", "randn", "random", "randint", "uniform", "normal", "choice", "permutation", "random_sample"),
}  # fmt: skip
"""Functions that return something else each time: a trace would freeze one result."""


@contextlib.contextmanager
def without_effects(context: StagingContext) -> Iterator[None]:
    """Inside, what the author's code prints or logs is not shown, and the context holds a remark of it; where the
    author's code draws a random number of Python's or asks for the time, that is refused (Unsupported)."""
    with contextlib.ExitStack() as undo:
        undo.callback(setattr, builtins, "print", builtins.print)
        undo.callback(logging.disable, logging.root.manager.disable)
        builtins.print = _noted(context)
        logging.disable(logging.CRITICAL)
        undo.enter_context(distributions_unchecked())
        undo.enter_context(modules_moved_where_needed())
        for module, names in CHANGING.items():
            for name in names:
                original = getattr(module, name)
                undo.callback(setattr, module, name, original)
                setattr(module, name, _refused(original, f"{module.__name__}.{name}"))
        yield


def _noted(context: StagingContext) -> Callable[..., None]:
    def dropped(*values: Any, **options: Any) -> None:
        if PRINTED not in context.dropped:
            context.dropped.append(PRINTED)

    return dropped


def _refused(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        root = str(sys._getframe(1).f_globals.get("__name__", "")).partition(".")[0]
        if root == "torch" or root in sys.stdlib_module_names - {"__main__"}:
            return original(*args, **kwargs)
        world = name.partition(".")[0]
        raise Unsupported(
            f"{name}()",
            f"it {OUTSIDE[world]}, and the artifact would freeze one result",
            REMEDY.get(world, "move it out of forward"),
        )

    return refuse
