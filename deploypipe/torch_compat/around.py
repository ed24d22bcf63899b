"""Modules that stand for another one: its parameters, buffers and submodules are theirs, under the same names."""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

TREE = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def share_tree(module: nn.Module, other: nn.Module) -> None:
    """Let `module` hold the very dictionaries in which `other` keeps its parameters, buffers and submodules."""
    for key in TREE:
        object.__setattr__(module, key, getattr(other, key))


class Around(nn.Module):
    """Calls its author's module otherwise than its users do."""

    author: nn.Module

    def __init__(self, author: nn.Module) -> None:
        super().__init__()
        share_tree(self, author)
        object.__setattr__(self, "author", author)
        self.training = author.training

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        yield from self.author.named_modules(*args, **kwargs)

    def train(self, mode: bool = True) -> "Around":
        self.author.train(mode)
        self.training = mode
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> "Around":
        self.author._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self


def parameter_beside(module: nn.Module, name: str) -> str:
    """`name`, with underscores after it until no argument of the module's `forward` is called so."""
    while name in inspect.signature(module.forward).parameters:
        name += "_"
    return name


def with_parameter(kind: type[Around], author: nn.Module, parameter: str, *fields: Any) -> Around:
    """A `kind` around `author`, called as its class is. Its `forward` takes what the author's takes and, by keyword,
    `parameter`; it calls `run(value, *args, **kwargs)` of the kind."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.run(kwargs.pop(parameter), *args, **kwargs)

    own = list(inspect.signature(author.forward).parameters.values())
    any_keyword = [each for each in own if each.kind is inspect.Parameter.VAR_KEYWORD]
    positional_only = any(each.kind is inspect.Parameter.POSITIONAL_ONLY for each in own)
    first = inspect.Parameter(
        "self", inspect.Parameter.POSITIONAL_ONLY if positional_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
    )
    added = inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY)
    parameters = [first, *(each for each in own if each not in any_keyword), added, *any_keyword]
    vars(forward)["__signature__"] = inspect.Signature(parameters)
    own_kind: type[Around] = type(
        type(author).__name__, (kind,), {"forward": forward, "__module__": type(author).__module__}
    )
    return own_kind(author, *fields)
