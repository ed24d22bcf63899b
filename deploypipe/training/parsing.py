"""Frozen dataclasses, nested by section, out of what people write: TOML tables, `section.key=value`, JSON."""

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from deploypipe.errors import UsageError

T = TypeVar("T")
Settings = Mapping[str, Any]
"""Key to value, or section to the settings in it."""
WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", types.NoneType: "none"}
"""The types that a setting may have."""


def require(holds: bool, what: str) -> None:
    """UsageError unless it holds; NaN holds nothing."""
    if not holds:
        raise UsageError(f"bad training configuration: {what}")


def keys(kind: type[Any], section: str = "") -> Iterator[str]:
    """The dotted keys of a dataclass."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from keys(typing.cast(type[Any], hint), f"{section}{name}.")
        else:
            yield section + name


def as_dataclass(kind: type[T], settings: Settings, *, whole: bool = False) -> T:
    """`settings` as the dataclass `kind`; what they leave out has its default, or is an error with `whole`. UsageError
    for an unknown key, with the one that was probably meant, and for a value of the wrong type."""
    known = list(keys(kind))
    if whole and (lacking := set(known) - set(given_keys(settings))):
        raise UsageError(f"the configuration has no {', '.join(sorted(lacking))}")
    return _read(kind, settings, "", known)


def given_keys(settings: Settings, section: str = "") -> Iterator[str]:
    """The dotted keys that have a value."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from given_keys(value, f"{section}{name}.")
        else:
            yield section + name


def _read(kind: type[T], settings: Settings, section: str, known: list[str]) -> T:
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in settings.items():
        key = f"{section}{name}"
        if name not in hints:
            raise UsageError(f"no setting {key!r}", _suggestion(key, known))
        hint = hints[name]
        if not dataclasses.is_dataclass(hint):
            values[name] = _value(key, value, hint)
        elif isinstance(value, Mapping):
            values[name] = _read(typing.cast(type[Any], hint), value, f"{key}.", known)
        else:
            inside = [other for other in known if other.startswith(f"{key}.")]
            raise UsageError(f"{key!r} is a section, not a setting", f"It has: {', '.join(inside)}.")
    return kind(**values)


def _value(key: str, value: object, hint: Any) -> object:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if kind is float and type(value) in (int, float) and math.isfinite(typing.cast(float, value)):
            return float(typing.cast(float, value))
        if type(value) is kind:  # a bool is no int here
            return value
    wanted = " or ".join(WORDS[kind] for kind in kinds)
    raise UsageError(f"bad training configuration: {key} is {value!r}, must be {wanted}")


def _suggestion(key: str, known: list[str]) -> str:
    """The keys that look like this one, whole or by their last part."""
    last = {other: other.rpartition(".")[2] for other in known}
    meant = [other for other in known if last[other] == key.rpartition(".")[2]]
    meant = meant or difflib.get_close_matches(key, known, n=1)
    close = difflib.get_close_matches(key.rpartition(".")[2], last.values(), n=1)
    meant = meant or [other for other in known if last[other] in close]
    return f"Did you mean {' or '.join(meant)}?" if meant else f"There are: {', '.join(known)}."


def merge(*layers: Settings) -> dict[str, Any]:
    """One over the other, section by section; the last wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            inside = isinstance(value, Mapping) and isinstance(below, Mapping)
            merged[key] = merge(below or {}, value) if inside else value
    return merged


def nested(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Dotted keys as sections."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        for part in reversed(key.split(".")):
            value = {part: value}
        found = merge(found, value)
    return found


def assignment(text: str) -> tuple[str, Any]:
    """`key=value`, the value as TOML has it, "none", or else a string as it is."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"{text!r} sets nothing", "Write section.key=value, as in optimizer.lr=0.05.")
    key, value = key.strip(), value.strip()
    if value == "none":
        return key, None
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise UsageError(f"{path} cannot be read: {reason}") from cause
