"""How the values of a call nest, and the flat list of tensors that artifacts carry.

An artifact carries tensors in a flat list. `flatten` turns whatever a model returns into that list and a JSON-able
description of the nesting; `unflatten` puts the nesting back. The same description serves for what a model takes. What
is no tensor is in the description itself: None, strings, and among the inputs numbers too.

This module travels inside archives.
"""

import dataclasses
import enum
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Structure = Any
"""One of

- None for a tensor;
- {"tuple" | "list": [Structure, …]};
- {"dict": [[key, Structure], …]}: pairs, because the order decides which tensor is which, and JSON objects are easily
  reordered;
- {"object": ["module:Class", [[field, Structure], …]]} for a dataclass, a NamedTuple, or a registered pytree node,
  whose context is a third item;
- {"constant": value}, and {"other": text} for a constant that JSON does not hold (a dtype, a device, infinity).
"""


@dataclasses.dataclass(frozen=True)
class Container:
    """A container of values, opened."""

    kind: str
    """ "tuple", "list", "dict" or "object"."""
    keys: Sequence[Any]
    """Of each item: its position, its key, or the name of its field."""
    items: Sequence[Any]
    rebuild: Callable[[list[Any]], Any]
    """A container of the same kind with other items."""
    title: str = ""
    """ "module:Class" of an object."""
    context: tuple[Any, ...] = ()
    """What a registered pytree node needs besides its items: one JSON value, or none where JSON cannot hold it."""

    def structure(self, items: Sequence[Structure]) -> Structure:
        if self.kind in ("tuple", "list"):
            return {self.kind: list(items)}
        pairs = [[key, item] for key, item in zip(map(_key, self.keys), items, strict=True)]
        if self.kind == "dict":
            return {"dict": pairs}
        return {"object": [self.title, pairs, *self.context]}


def opened(value: Any) -> Container | None:
    """A container of Python's own kinds; None for whatever is none."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        items = [getattr(value, name) for name in names]
        kind = type(value)
        return Container(
            "object", names, items, lambda parts: dataclass_of(kind, dict(zip(names, parts, strict=True))),
            class_path(kind),
        )  # fmt: skip
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        made: Any = type(value)
        return Container("object", value._fields, value, made._make, class_path(type(value)))
    if isinstance(value, tuple):
        return Container("tuple", range(len(value)), value, tuple)
    if isinstance(value, list):
        return Container("list", range(len(value)), value, list)
    if isinstance(value, Mapping):
        keys, make = list(value), type(value) if isinstance(value, dict) else dict
        return Container("dict", keys, list(value.values()), lambda parts: _filled(make, keys, parts))
    return None


Opened = Callable[[Any], Container | None]


def flatten(outputs: Any, open_container: Opened = opened) -> tuple[list[Any], Structure]:
    """The leaves of a model's outputs in order, and how they nest. A leaf is a Python number, or whatever has a dtype
    and a shape (a tensor, an array). None and strings are constants. TypeError for anything else."""
    if is_number(outputs) or is_tensor_like(outputs):
        return [outputs], None
    if outputs is None or isinstance(outputs, str):
        return [], constant(outputs)
    container = open_container(outputs)
    if container is None:
        raise TypeError(
            "a model may return tensors, numbers, strings, None, and tuples, lists, dicts, dataclasses and registered "
            f"pytree nodes of them, not {type(outputs).__name__}"
        )
    parts = [flatten(item, open_container) for item in container.items]
    structure = container.structure([part for _, part in parts])
    return [leaf for leaves, _ in parts for leaf in leaves], structure


Build = Callable[..., Any]
"""An object from its class's title, its fields, and the context of a pytree node if it has one."""


def fields_alone(title: str, fields: Mapping[Any, Any], *context: Any) -> dict[Any, Any]:
    """An object as a dict of its fields."""
    return dict(fields)


def unflatten(leaves: Sequence[Any], structure: Structure, build: Build = fields_alone) -> Any:
    """The inverse of `flatten`. An object comes back as a dict of its fields, unless `build` makes one."""
    remaining = iter(leaves)

    def value_of(node: Structure) -> Any:
        if node is None:
            return next(remaining)
        kind, items = kind_of(node)
        if kind == "constant":
            return items
        if kind == "other":
            raise ValueError(f"{items} cannot be made from its name")
        if kind == "dict":
            return {key: value_of(item) for key, item in items}
        if kind == "object":
            title, pairs, *context = items
            return build(title, {key: value_of(item) for key, item in pairs}, *context)
        built = [value_of(item) for item in items]
        return built if kind == "list" else tuple(built)

    return value_of(structure)


def kind_of(structure: Structure) -> tuple[str, Any]:
    """What a node is, and what is in it. ValueError for what is no node."""
    ((kind, items),) = structure.items()
    if kind not in ("tuple", "list", "dict", "object", "constant", "other"):
        raise ValueError(f"no kind of node is {kind!r}")
    return kind, items


def children_of(structure: Structure) -> list[tuple[Any, Structure]]:
    """The keys and structures of a node's items; none of a tensor or a constant."""
    if structure is None:
        return []
    kind, items = kind_of(structure)
    if kind in ("constant", "other"):
        return []
    if kind in ("tuple", "list"):
        return list(enumerate(items))
    return [(key, item) for key, item in (items if kind == "dict" else items[1])]


def by_name(outputs: Any) -> Any:
    """The same outputs with every dict in the order of its names: a dict that is filled in another order on another
    path is the same dict."""
    if isinstance(outputs, Mapping):
        return {name: by_name(outputs[name]) for name in sorted(outputs, key=str)}
    if isinstance(outputs, list | tuple):
        items = [by_name(item) for item in outputs]
        return items if isinstance(outputs, list) else tuple(items)
    return outputs


def leaf_names(structure: Structure, root: str = "output") -> list[str]:
    """A name for each output tensor: `output` for one alone, `output_0`, … by position, a dict's own keys, and an
    object's fields."""

    def walk(node: Structure, path: str) -> list[str]:
        if node is None:
            return [path or root]
        kind, _ = kind_of(node)
        found = children_of(node)
        if kind in ("dict", "object"):
            return [name for key, item in found for name in walk(item, f"{path}.{key}" if path else str(key))]
        return [name for i, item in found for name in walk(item, f"{path or root}_{i}")]

    return walk(structure, "")


def leaf_paths(structure: Structure, path: str) -> list[str]:
    """Where each tensor of an argument is, as Python writes it: `images[0]`, `past[1].key`, `batch.input_ids`."""
    if structure is None:
        return [path]
    return [name for key, item in children_of(structure) for name in leaf_paths(item, path_to(path, key))]


def path_to(path: str, key: Any) -> str:
    return f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r}]"


def leaves_along(structure: Structure, value: Any, path: str, open_container: Opened = opened) -> Iterator[Any]:
    """The tensors of a value that nests as `structure` says. TypeError, naming the place, for one that does not, or
    that has another constant."""
    if structure is None:
        if not is_tensor_like(value):
            raise TypeError(f"`{path}` must be a tensor here, not {_shown(value)}")
        yield value
        return
    kind, items = kind_of(structure)
    if kind in ("constant", "other"):
        if is_tensor_like(value) or (given := constant(value)) is None or not equal_constants(given, structure):
            kept = repr(items) if kind == "constant" else items
            raise TypeError(f"`{path}` is a constant of this artifact, {kept}: it cannot be {_shown(value)}")
        return
    container, pairs = open_container(value), children_of(structure)
    # An object that comes back as a dict, because its class is not known here, can be given as that dict.
    fits = container is not None and (container.kind == kind or (kind, container.kind) == ("object", "dict"))
    if container is None or not fits:
        raise TypeError(f"`{path}` must be {_described(structure)}, not {_shown(value)}")
    given = dict(zip(map(_key, container.keys), container.items, strict=True))
    if set(given) != {key for key, _ in pairs}:
        found = container.structure([None] * len(given))
        raise TypeError(f"`{path}` must be {_described(structure)}, not {_described(found)}")
    for key, item in pairs:
        yield from leaves_along(item, given[key], path_to(path, key), open_container)


def constant(value: Any) -> Structure:
    """The node of a constant. None, which is a tensor's, for what cannot be one."""
    if value is None or type(value) in (bool, int, str):
        return {"constant": value}
    if type(value) is float:
        finite = value - value == 0
        return {"constant": value} if finite else {"other": repr(value)}
    if isinstance(value, enum.Enum):
        return {"other": str(value)}
    if isinstance(value, complex | bytes | slice | range) or type(value).__module__ == "torch":
        return {"other": repr(value)}
    return None


def equal_constants(one: Structure, other: Structure) -> bool:
    """1, 1.0 and True are three constants."""
    return json.dumps(one) == json.dumps(other)


def is_tensor_like(value: Any) -> bool:
    """Whether it is a tensor of PyTorch, or an array of NumPy."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def class_path(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def dataclass_of(kind: type, fields: Mapping[str, Any]) -> Any:
    """A dataclass of these fields, those too that its constructor does not take."""
    taken = {field.name for field in dataclasses.fields(kind) if field.init}
    made = kind(**{name: value for name, value in fields.items() if name in taken})
    for name in fields.keys() - taken:
        object.__setattr__(made, name, fields[name])
    return made


def _filled(make: Callable[[], Any], keys: Sequence[Any], items: Sequence[Any]) -> Any:
    made = make()
    made.update(zip(keys, items, strict=True))
    return made


def _key(key: Any) -> Any:
    return key if isinstance(key, str | int) else str(key)


def _described(structure: Structure) -> str:
    """ "a tuple of 2", "a dict of a, b", "a Point of x, y"."""
    kind, items = kind_of(structure)
    keys = ", ".join(str(key) for key, _ in children_of(structure))
    if not keys and kind != "object":
        return f"an empty {kind}"
    if kind == "object":
        return f"a {items[0].rpartition(':')[2]} of {keys}"
    return f"a dict of {keys}" if kind == "dict" else f"a {kind} of {len(items)}"


def _shown(value: Any) -> str:
    """A constant as it is written, of anything else its kind."""
    if is_tensor_like(value):
        return "a tensor"
    return repr(value) if value is None or isinstance(value, bool | int | float | str) else f"a {type(value).__name__}"
