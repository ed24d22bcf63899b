"""Named sets of settings for image classifiers, over the defaults of TrainConfig. Chosen on a validation split of the
training set, never on the test set."""

from dataclasses import dataclass
from typing import Any

from deploypipe.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    summary: str
    settings: dict[str, Any]
    """As a TOML file would have them."""


RECIPES = {
    # How these were found, and what did not help: docs/training.md.
    "fast": Recipe(
        "99 % of MNIST in seconds: 0.6 of an epoch of it, Muon, label smoothing, bfloat16",
        {
            "examples": 36_000,
            "batch_size": 256,
            "precision": "auto",
            "optimizer": {"name": "muon", "momentum": 0.8, "adam_lr": 0.01, "beta1": 0.7, "beta2": 0.9},
            "schedule": {"name": "linear", "warmup": 0.2, "start": 0.1, "final": 0.02},
            "loss": {"label_smoothing": 0.1},
        },
    ),
    "accurate": Recipe(
        "the last tenths of a per cent: wide-cnn, 20 epochs of MNIST, images moved, turned and scaled",
        {
            "model": "wide-cnn",
            "examples": 1_200_000,
            "batch_size": 256,
            "precision": "auto",
            "average": 0.998,
            "optimizer": {"name": "adam", "lr": 0.01, "beta1": 0.9, "beta2": 0.99},
            "schedule": {"name": "linear", "warmup": 0.2, "start": 0.1},
            "loss": {"label_smoothing": 0.1},
            "augment": {"shift": 2.0, "rotate": 10.0, "scale": 0.1},
        },
    ),
    "plain": Recipe("Adam and one-cycle: a start for any network, and the default of those that have no recipe", {}),
}


def settings_of(name: str) -> dict[str, Any]:
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}", f"There are: {', '.join(RECIPES)}.")
    return RECIPES[name].settings
