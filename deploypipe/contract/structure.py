"""How a model's outputs nest, and the flat list of them that artifacts carry.

An artifact carries tensors in a flat list. `flatten` turns whatever a model returns (a tensor, a number, or tuples,
lists, dicts and dataclasses of them) into that list and a JSON-able description of the nesting; `unflatten` puts the
nesting back. A dataclass comes back as a dict of its fields.

This module travels inside archives.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Structure = Any
"""None for a tensor, {"tuple" | "list": [Structure, …]}, or {"dict": [[name, Structure], …]}: pairs, because the order
decides which tensor is which, and JSON objects are easily reordered."""


def flatten(outputs: Any) -> tuple[list[Any], Structure]:
    """The leaves of a model's outputs in order, and how they nest. A leaf is a Python number, or whatever has a dtype
    and a shape (a tensor, an array). TypeError for anything else."""
    if isinstance(outputs, bool | int | float) or (hasattr(outputs, "dtype") and hasattr(outputs, "shape")):
        return [outputs], None
    items: Sequence[Any]
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        outputs = {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    if isinstance(outputs, Mapping):
        names, items = [str(name) for name in outputs], list(outputs.values())
    elif isinstance(outputs, tuple | list):
        names, items = None, outputs
    else:
        raise TypeError(f"a model may return tensors, numbers, and tuples, lists, dicts and dataclasses of them, "
                        f"not {type(outputs).__name__}")  # fmt: skip
    leaves: list[Any] = []
    structures: list[Structure] = []
    for item in items:
        item_leaves, structure = flatten(item)
        leaves += item_leaves
        structures.append(structure)
    if names is not None:
        return leaves, {"dict": [[name, item] for name, item in zip(names, structures, strict=True)]}
    return leaves, {"list" if isinstance(outputs, list) else "tuple": structures}


def unflatten(leaves: Sequence[Any], structure: Structure) -> Any:
    """The inverse of `flatten`."""
    remaining = iter(leaves)

    def build(node: Structure) -> Any:
        if node is None:
            return next(remaining)
        ((kind, items),) = node.items()
        if kind == "dict":
            return {name: build(item) for name, item in items}
        built = [build(item) for item in items]
        return built if kind == "list" else tuple(built)

    return build(structure)


def by_name(outputs: Any) -> Any:
    """The same outputs with every dict in the order of its names: a dict that is filled in another order on another
    path is the same dict."""
    if isinstance(outputs, Mapping):
        return {name: by_name(outputs[name]) for name in sorted(outputs)}
    if isinstance(outputs, list | tuple):
        items = [by_name(item) for item in outputs]
        return items if isinstance(outputs, list) else tuple(items)
    return outputs


def leaf_names(structure: Structure, root: str = "output") -> list[str]:
    """A name for each tensor: `output` for one alone, `output_0`, … by position, and a dict's own keys."""

    def walk(node: Structure, path: str) -> list[str]:
        if node is None:
            return [path or root]
        ((kind, items),) = node.items()
        if kind == "dict":
            return [name for key, item in items for name in walk(item, f"{path}.{key}" if path else key)]
        return [name for i, item in enumerate(items) for name in walk(item, f"{path or root}_{i}")]

    return walk(structure, "")
