"""The form of a call: which arguments a module takes, what of them are tensors, and what is constant.

This module travels inside archives.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .structure import Opened, Structure, equal_constants, leaf_paths, leaves_along, opened

KINDS = {
    "positional only": inspect.Parameter.POSITIONAL_ONLY,
    "plain": inspect.Parameter.POSITIONAL_OR_KEYWORD,
    "any positional": inspect.Parameter.VAR_POSITIONAL,
    "keyword only": inspect.Parameter.KEYWORD_ONLY,
    "any keyword": inspect.Parameter.VAR_KEYWORD,
}
EMPTY: Mapping[str, Structure] = {"any positional": {"tuple": []}, "any keyword": {"dict": []}}
"""What `*args` and `**kwargs` hold where nothing is given."""


class Call:
    """The arguments of one call, as `module(*args, **kwargs)` takes them: `Call(x, scale=2)`."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def __repr__(self) -> str:
        return f"Call({', '.join([*map(repr, self.args), *(f'{k}={v!r}' for k, v in self.kwargs.items())])})"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a module's `forward`, and what it held in the call that was captured."""

    name: str
    kind: str
    """A key of `KINDS`."""
    structure: Structure
    default: Structure = None
    """The constant that stands for it where it is left out; None where it must be given."""

    @property
    def left_out(self) -> Structure:
        return EMPTY.get(self.kind, self.default)

    def paths(self) -> list[str]:
        """The names of its tensors. Those in `**kwargs` are called as their caller calls them."""
        if self.kind != "any keyword":
            return leaf_paths(self.structure, self.name)
        return [path for key, item in self.structure["dict"] for path in leaf_paths(item, key)]


@dataclass(frozen=True)
class CallForm:
    """Every parameter of a module in order. The tensors of a call in this order are the inputs of an artifact."""

    parameters: tuple[Parameter, ...]

    @classmethod
    def of_names(cls, names: Sequence[str]) -> "CallForm":
        """A call of tensors alone, each an argument of its own."""
        return cls(tuple(Parameter(name, "plain", None) for name in names))

    def paths(self) -> list[str]:
        return [path for parameter in self.parameters for path in parameter.paths()]

    def tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any], open_container: Opened = opened) -> list[Any]:
        """The tensors of a call. TypeError, in one line, for one that does not nest as the captured one did, or that
        has other constants."""
        given = self.signature().bind(*args, **kwargs).arguments
        found: list[Any] = []
        for parameter in self.parameters:
            if parameter.name in given:
                value = given[parameter.name]
                found += leaves_along(parameter.structure, value, parameter.name, open_container)
            elif not equal_constants(parameter.left_out, parameter.structure):
                raise TypeError(
                    f"`{parameter.name}` must be given: the call that was captured had something else in it than where "
                    "it is left out"
                )
        return found

    def signature(self) -> inspect.Signature:
        """Of the module's `forward`, as far as it matters to whoever calls it."""
        empty = inspect.Parameter.empty
        return inspect.Signature(
            [
                inspect.Parameter(each.name, KINDS[each.kind], default=empty if each.default is None else each.default)
                for each in self.parameters
            ]
        )
