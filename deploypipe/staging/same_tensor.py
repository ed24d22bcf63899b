"""Two names for one tensor, where a branch or loop makes copies: a change in place would reach only one of them.

In eager, `y = x` in a branch and `y += 1` after it changes `x` too. The results of a staged block share no memory, so
the change cannot travel. That is no harm unless the other name is read afterwards, which is refused.
"""

from __future__ import annotations

from torch import Tensor

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import current
from deploypipe.torch_compat.dispatch import storage_id


def join(first: Tensor, second: Tensor) -> None:
    """Remember that eager has one tensor where the graph has these two."""
    one, other = storage_id(first), storage_id(second)
    if one == other:
        return
    aliases = current().aliases
    # By storage, because a loop that is staged joins the same tensors in every dry run.
    aliases.setdefault(one, (first, {}))[1].setdefault(other, second)
    aliases.setdefault(other, (second, {}))[1].setdefault(one, first)


def partners(tensor: Tensor) -> list[Tensor]:
    _, others = current().aliases.get(storage_id(tensor), (tensor, {}))
    return list(others.values())


def put_into(made: Tensor, old: Tensor, part: Tensor) -> None:
    """A list's buffer after an append: it holds what the buffer before held, and one tensor more."""
    for held in (part, *partners(old)):
        join(made, held)


def refuse_stale(tensor: Tensor) -> None:
    if storage_id(tensor) in current().stale:
        raise Unsupported(
            "a tensor that another name of it changed in place",
            "a branch or loop that depends on data gave it a second name, and the change cannot reach both",
            "write `x = x + 1` instead of `x += 1` (or index assignment), or clone the tensor for its second name",
        )
