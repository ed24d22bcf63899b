"""Two names for one tensor, where a branch or loop makes copies: a change in place would reach only one of them.

In eager, `y = x` in a branch and `y += 1` after it changes `x` too. The results of a staged block share no memory, so
the change cannot travel. That is no harm unless the other name is read afterwards, which is refused.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import current
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.templates import (
    GrowT,
    Template,
    TensorT,
    TreeT,
    children,
    flat_count,
)


def storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def join(first: Tensor, second: Tensor) -> None:
    """Remember that eager has one tensor where the graph has these two."""
    if storage(first) == storage(second):
        return
    aliases = current().aliases
    aliases.setdefault(storage(first), (first, []))[1].append(second)
    aliases.setdefault(storage(second), (second, []))[1].append(first)


def partners(tensor: Tensor) -> list[Tensor]:
    return list(current().aliases.get(storage(tensor), (tensor, []))[1])


def put_into(made: Tensor, old: Tensor, part: Tensor) -> None:
    """A list's buffer after an append: it holds what the buffer before held, and one tensor more."""
    for held in (part, *partners(old)):
        join(made, held)


def join_results(templates: list[Template], results: list[Tensor], sides: list[tuple[Any, ...]]) -> None:
    """What a block's results were made from, on each of its sides, stays one with them in eager."""
    for values in sides:
        groups = [g for template, value in zip(templates, values, strict=True) for g in sources(template, value)]
        seen: dict[int, Tensor] = {}
        for result, group in zip(results, groups, strict=False):
            for source in [*group, *[p for s in group for p in partners(s)]]:
                join(result, source)
                join(result, seen.setdefault(storage(source), result))


def sources(template: Template, value: Any) -> list[list[Tensor]]:
    """For each tensor that carries `value`, the tensors of the author's that it copies."""
    match template:
        case TensorT():
            return [[value] if isinstance(value, Tensor) else []]
        case TreeT():
            found = children(value)
            if found is None or len(found[1]) != len(template.children):
                return [[] for _ in range(flat_count(template))]
            return [g for child, part in zip(template.children, found[1], strict=True) for g in sources(child, part)]
        case GrowT():
            if isinstance(value, GrowingList):
                return [*[[b] for b in value.buffers], []]
            groups: list[list[Tensor]] = [[] for _ in range(flat_count(template.element))]
            for element in value if isinstance(value, list) else ():
                for group, found_ in zip(groups, sources(template.element, element), strict=True):
                    group += found_
            return [*groups, []]
    return [[] for _ in range(flat_count(template))]


class Watch(TorchFunctionMode):
    """Sees every call of torch: changes in place make the copies stale, and reading a stale copy is refused."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        context = current()
        refuse_random(func, args, kwargs)
        if context.stale:
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and not _asks_only(func):
                    refuse_stale(leaf)
        if context.aliases and args and _changes(func, kwargs):
            for target in (args[0], kwargs.get("out")):
                if isinstance(target, Tensor):
                    _, others = context.aliases.get(storage(target), (target, []))
                    context.stale.update({storage(o): o for o in others if storage(o) != storage(target)})
        return func(*args, **kwargs)


def refuse_stale(tensor: Tensor) -> None:
    if storage(tensor) in current().stale:
        raise Unsupported(
            "a tensor that another name of it changed in place",
            "a branch or loop that depends on data gave it a second name, and the change cannot reach both",
            "write `x = x + 1` instead of `x += 1` (or index assignment), or clone the tensor for its second name",
        )


def refuse_random(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name = getattr(func, "__name__", "")
    if name in DROPOUTS:
        training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else name != "rrelu"))
        draws = training and kwargs.get("p", args[1] if len(args) > 1 else 0.5) != 0
    elif name == "scaled_dot_product_attention":
        draws = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0) != 0
    else:
        draws = name in DRAWS
    if draws:
        raise Unsupported(
            f"torch.{name}",
            "it draws random numbers, so no two runs agree and no artifact can be compared with eager",
            "pass the random tensor in as an input"
            if name in DRAWS
            else "give it training=self.training (an artifact infers in eval mode)",
        )


DRAWS = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "bernoulli_",
    "multinomial", "normal", "normal_", "uniform_", "poisson", "random_", "exponential_", "geometric_", "cauchy_",
    "log_normal_", "gumbel_softmax",
}  # fmt: skip
DROPOUTS = {
    "dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "alpha_dropout_", "feature_dropout",
    "feature_alpha_dropout",
}  # fmt: skip


def _changes(func: Any, kwargs: dict[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    operator = name.startswith("__i") and name.endswith("__") and name not in ("__index__", "__invert__", "__int__")
    asked = bool(kwargs.get("inplace")) or kwargs.get("out") is not None
    return (in_place and name != "requires_grad_") or operator or name == "__setitem__" or asked


def _asks_only(func: Any) -> bool:
    """Whether a call reads no values: sizes, dtypes and the like."""
    return getattr(func, "__name__", "") in (
        "__get__",
        "size",
        "dim",
        "numel",
        "__len__",
        "is_floating_point",
        "stride",
    )


__all__ = ["Watch", "join", "join_results", "refuse_stale", "storage"]
