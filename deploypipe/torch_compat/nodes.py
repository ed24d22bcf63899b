"""Containers that are registered with torch's pytree, caches, and how objects are made again from what they held."""

import copy
import dataclasses
import json
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from deploypipe.contract.structure import Container, class_path, dataclass_of, opened
from deploypipe.torch_compat.dispatch import pytree

CACHES = ("Cache", "Layer")
"""How the classes of a decoder's cache and of its parts are called. They are opened by their attributes, because nobody
registers them."""


def open_node(value: Any) -> Container | None:
    """A container of Python's own kinds, a registered pytree node, or a cache; None for whatever is neither."""
    node = pytree.SUPPORTED_NODES.get(type(value))
    if node is None and type(value).__name__.endswith(CACHES) and not isinstance(value, nn.Module | Mapping):
        return _open_cache(value)
    if node is None or isinstance(value, dict | list | tuple) or dataclasses.is_dataclass(value):
        return opened(value)
    keys: list[Any]
    if node.flatten_with_keys_fn is not None:
        pairs, context = node.flatten_with_keys_fn(value)
        keys, items = [_plain_key(key) for key, _ in pairs], [item for _, item in pairs]
    else:
        items, context = node.flatten_fn(value)
        keys = list(range(len(items)))
    return Container(
        "object", keys, list(items), lambda parts: node.unflatten_fn(parts, context), class_path(type(value)),
        _written_context(type(value), context),
    )  # fmt: skip


def object_of(title: str, fields: Mapping[Any, Any], *context: Any) -> Any:
    """A dataclass, NamedTuple, pytree node or cache of these fields; a dict of them where its class cannot be
    imported."""
    kind = _class_named(title)
    try:
        if dataclasses.is_dataclass(kind):
            return dataclass_of(kind, fields)
        if kind is not None and issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return kind(**fields)
        if kind in pytree.SUPPORTED_NODES and context:
            return pytree.SUPPORTED_NODES[kind].unflatten_fn(list(fields.values()), _read_context(kind, *context))
        if kind is not None and kind.__name__.endswith(CACHES) and context:
            made: Any = object.__new__(kind)
            vars(made).update({name: _read_attribute(text) for name, text in context[0].items()}, **fields)
            return made
    except Exception:  # whatever a class of another version raises when it is made of these fields
        pass
    return dict(fields)


def _open_cache(value: Any) -> Container:
    """What it holds of tensors, numbers and containers of them; its other attributes are its context."""
    fields = {name: item for name, item in vars(value).items() if not _is_setting(item)}

    def rebuild(parts: list[Any]) -> Any:
        made = copy.copy(value)
        vars(made).update(zip(fields, parts, strict=True))
        return made

    settings = {name: _written_attribute(item) for name, item in vars(value).items() if name not in fields}
    whole = all(text is not None for text in settings.values())
    return Container(
        "object", list(fields), list(fields.values()), rebuild, class_path(type(value)), (settings,) if whole else ()
    )


def _is_setting(value: Any) -> bool:
    return value is None or isinstance(value, bool | str | type | torch.dtype | torch.device) or callable(value)


def _written_attribute(value: Any) -> Any:
    """[kind, text]; None for what cannot be written."""
    if value is None or isinstance(value, bool | str):
        return ["plain", value]
    if isinstance(value, torch.dtype):
        return ["dtype", str(value).removeprefix("torch.")]
    if isinstance(value, torch.device):
        return ["device", str(value)]
    return ["class", class_path(value)] if isinstance(value, type) else None


def _read_attribute(written: Any) -> Any:
    kind, text = written
    if kind == "dtype":
        return getattr(torch, text)
    if kind == "device":
        return torch.device(text)
    return _class_named(text) if kind == "class" else text


def _class_named(title: str) -> type | None:
    module, _, name = title.partition(":")
    try:
        found: Any = sys.modules.get(module) or import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception:  # whatever a module raises when it is imported
        return None
    return found if isinstance(found, type) else None


def _plain_key(key: Any) -> Any:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def _written_context(kind: type, context: Any) -> tuple[Any, ...]:
    write = getattr(pytree.SUPPORTED_SERIALIZED_TYPES.get(kind), "to_dumpable_context", None)
    try:
        return (json.loads(json.dumps(write(context) if write else context)),)
    except Exception:  # whatever a class's own functions raise
        return ()


def _read_context(kind: type, context: Any) -> Any:
    read = getattr(pytree.SUPPORTED_SERIALIZED_TYPES.get(kind), "from_dumpable_context", None)
    return read(context) if read else context
