"""Named sets of settings for image classifiers, over the defaults of TrainConfig. Chosen on a validation split of the
training set, never on the test set."""

from dataclasses import dataclass
from typing import Any

from deploypipe.errors import UsageError

DEFAULT = "fast"


@dataclass(frozen=True)
class Recipe:
    summary: str
    settings: dict[str, Any]
    """As a TOML file would have them."""


RECIPES = {
    "fast": Recipe("the defaults", {}),
    "accurate": Recipe(
        "several times as long, for the last tenths of a per cent",
        {"epochs": 20, "augment": {"shift": 2.0, "rotate": 10.0, "scale": 0.1}},
    ),
}


def settings_of(name: str) -> dict[str, Any]:
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}", f"There are: {', '.join(RECIPES)}.")
    return RECIPES[name].settings
