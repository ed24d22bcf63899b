"""Which tensors of the author's the results of a staged block stand for, so that changes in place can be followed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deploypipe.staging.lists import GrowingList
from deploypipe.staging.same_tensor import join, partners
from deploypipe.staging.templates import GrowT, LongerT, Template, TensorT, TreeT, children, flat_count
from deploypipe.torch_compat.dispatch import storage_id


def join_results(templates: list[Template], results: list[Tensor], sides: list[tuple[Any, ...]]) -> None:
    """What a block's results were made from, on each of its sides, stays one with them in eager."""
    for values in sides:
        groups = [g for template, value in zip(templates, values, strict=True) for g in sources(template, value)]
        seen: dict[int, Tensor] = {}
        for result, group in zip(results, groups, strict=False):
            for source in [*group, *[p for s in group for p in partners(s)]]:
                join(result, source)
                join(result, seen.setdefault(storage_id(source), result))


def sources(template: Template, value: Any) -> list[list[Tensor]]:
    """For each tensor that carries `value`, the tensors of the author's that it copies."""
    match template:
        case TensorT():
            return [[value] if isinstance(value, Tensor) else []]
        case LongerT():
            return [[value] if isinstance(value, Tensor) else [], []]
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
