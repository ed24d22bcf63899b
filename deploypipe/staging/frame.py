"""A frame: the names that a block shares with its surroundings, and how a helper saves and restores their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from deploypipe.staging.templates import fresh_containers

Values = tuple[Any, ...]
INDEX = "index#"
"""The name of a loop's own index: no variable can be called so."""


@dataclass(frozen=True)
class Frame:
    get: Callable[[], Values]
    put: Callable[[Values], None]
    names: tuple[str, ...]
    live: tuple[str, ...]
    """Those whose values can still be read after the block."""
    carried: tuple[str, ...] = ()
    """Those that a loop hands from one iteration to the next."""

    def save(self) -> Values:
        return tuple(self.get())

    def restore(self, values: Values) -> None:
        self.put(values)

    def restore_afresh(self, values: Values) -> None:
        """Restore the values in new containers, so that what a block does to a list is not seen by another."""
        self.put(afresh(values))

    def keeping(self, names: tuple[str, ...]) -> Frame:
        """The frame with these names live as well."""
        return replace(self, live=tuple(dict.fromkeys([*self.live, *names])))

    def with_index(self, get: Callable[[], Any], put: Callable[[Any], None]) -> Frame:
        """The frame with the index of a loop as its last name."""

        def get_all() -> Values:
            return (*self.get(), get())

        def put_all(values: Values) -> None:
            self.put(values[:-1])
            put(values[-1])

        return Frame(get_all, put_all, (*self.names, INDEX), (*self.live, INDEX), (*self.carried, INDEX))


class Slot:
    """A place for the value of an expression, with the frame through which a helper writes it."""

    def __init__(self, label: str) -> None:
        self.value: Any = None
        self.frame = Frame(lambda: (self.value,), self._put, (label,), (label,))

    def _put(self, values: Values) -> None:
        (self.value,) = values


def afresh(values: Values) -> Values:
    return tuple(fresh_containers(value) for value in values)
