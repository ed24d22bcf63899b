"""A training's settings as options, made from the configuration class: a field's name, type, default and the text below
it are the option's, so that a new setting has its option without a line here.

tyro, jsonargparse and the command line of pydantic-settings read dataclasses too, but each is a command line of its own
(on argparse); inside a Typer command their options would be missing from its `--help`, its completion and its errors.
"""

import ast
import dataclasses
import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from deploypipe.training.config import TrainConfig
from deploypipe.training.recipes import RECIPES

SHORT = {
    "optimizer.lr": "learning_rate",
    "optimizer.momentum": "momentum",
    "optimizer.weight_decay": "l2",
    "loss.l1": "l1",
    "augment.shift": "shift",
    "augment.rotate": "rotate",
    "augment.scale": "scale",
}
"""Settings whose option has a shorter name than section and field."""

Recipe = Annotated[str | None, typer.Option(help=f"A set of settings: {', '.join(RECIPES)}. [default: the model's]")]
Config = Annotated[Path | None, typer.Option(help="A TOML file of settings, over the recipe's.")]
Set = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="One setting, over the file's: optimizer.lr=0.05.")
]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of the configuration or of a section of it."""

    key: str
    """`section.field`, as a TOML file and `--set` have it."""
    type: Any
    default: Any
    help: str

    @property
    def name(self) -> str:
        """That of the parameter, and with dashes of the option."""
        return SHORT.get(self.key) or self.key.removesuffix(".name").replace(".", "_")

    @property
    def parameter(self) -> inspect.Parameter:
        shown = "" if self.default is None else f" [default: {self.default}]"
        annotated: Any = Annotated  # which takes a type that is not written down here
        annotation = annotated[self.type | None, typer.Option(help=self.help + shown)]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


@functools.cache
def settings() -> tuple[Setting, ...]:
    """Every setting of a training."""
    return tuple(_settings_in(TrainConfig))


def _settings_in(kind: type[Any], section: str = "") -> Iterator[Setting]:
    """Every setting of a dataclass and of the dataclasses in it."""
    said, hints = _texts(kind.__module__)[kind.__name__], typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _settings_in(typing.cast(type[Any], hint), f"{field.name}.")
        else:
            yield Setting(section + field.name, hint, field.default, said.get(field.name, ""))


@functools.cache
def _texts(module: str) -> dict[str, dict[str, str]]:
    """Class → field → the text below it, which Python itself does not keep. "None: …" is what an option's default is
    then. A module is parsed once, since every start of the command line waits for it."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _texts_in(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _texts_in(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for above, below in zip(node.body, node.body[1:], strict=False):
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name) and isinstance(below, ast.Expr):
            text = " ".join(ast.literal_eval(below.value).split())
            found[above.target.id] = re.sub(r"\bNone: (.*?)\.?$", r"[default: \1]", text)
    return found


def takes_settings(*only: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The verb's `**settings` becomes an option for each setting, or for those whose key is in `only`. The verb gets
    those that were given, by key."""
    chosen = {setting.name: setting for setting in settings() if not only or setting.key in only}

    def decorated(verb: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(verb)
        def with_options(**given: Any) -> Any:
            own = {name: value for name, value in given.items() if name not in chosen}
            return verb(**own, **{chosen[name].key: value for name, value in given.items()
                                  if name in chosen and value is not None})  # fmt: skip

        signature = inspect.signature(verb)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [setting.parameter for setting in chosen.values()]
        with_options.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return with_options

    return decorated


def option_of(key: str) -> str:
    """How a setting is given on the command line."""
    (name,) = (setting.name for setting in settings() if setting.key == key)
    return f"--{name.replace('_', '-')}"
