"""Sees every call of torch while a program is captured."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.explicit import RANDOM_REMEDY
from deploypipe.staging.context import current
from deploypipe.staging.same_tensor import partners, refuse_stale
from deploypipe.torch_compat.dispatch import pytree, storage_id
from deploypipe.torch_compat.operators import RANDOM, changes_in_place, draws_random_numbers

ASKS_ONLY = {"__get__", "size", "dim", "numel", "__len__", "is_floating_point", "stride"}
"""Calls that read no values: they ask for sizes, dtypes and the like."""


COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}


class Watch(TorchFunctionMode):
    """Changes in place make the copies stale, reading a stale copy is refused, and so is drawing random numbers. What
    is compared is noted: it may say how often a loop runs."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        context, name = current(), getattr(func, "__name__", "")
        if draws_random_numbers(name, args, kwargs):
            _refuse_random(name)
        if context.stale and name not in ASKS_ONLY:
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    refuse_stale(leaf)
        if context.aliases and args and changes_in_place(name, kwargs):
            for target in (args[0], kwargs.get("out")):
                if isinstance(target, Tensor):
                    others = [t for t in partners(target) if storage_id(t) != storage_id(target)]
                    context.stale.update({storage_id(other): other for other in others})
        result = func(*args, **kwargs)
        if (symbol := COMPARISONS.get(name.strip("_"))) and len(args) == 2 and isinstance(result, Tensor):
            context.comparisons[id(result)] = result, symbol, *args
        return result


def _refuse_random(name: str) -> None:
    raise Unsupported(
        f"torch.{name}",
        "it draws random numbers, so no two runs agree and no artifact can be compared with eager",
        RANDOM_REMEDY if name in RANDOM else "give it training=self.training (an artifact infers in eval mode)",
    )
