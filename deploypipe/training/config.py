"""Everything that decides a training, and what goes before what."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploypipe.models import DEFAULT, entry_of
from deploypipe.training import recipes, settings
from deploypipe.training.augment import AugmentConfig
from deploypipe.training.checkpoint import CheckpointConfig
from deploypipe.training.optim import OptimizerConfig, ScheduleConfig
from deploypipe.training.settings import check

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class LossConfig:
    l1: float = 0.0
    """Times the sum of |w|, added to the loss."""
    label_smoothing: float = 0.0
    """How much of the right class's probability is wanted for all classes alike."""

    def __post_init__(self) -> None:
        check(0 <= self.label_smoothing < 1, f"loss.label_smoothing is {self.label_smoothing}, must be in [0, 1)")
        check(self.l1 >= 0, f"loss.l1 is {self.l1}, must not be negative")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights, besides versions and hardware. Defaults live here and in its sections."""

    model: str = DEFAULT
    data: str = "auto"
    """A dataset's name, "auto" for the model's own default."""
    data_dir: str | None = None
    epochs: float | None = None
    """Whole or not. None: what `examples` come to."""
    examples: int | None = None
    """To train on in all, however large the dataset is. None: as many epochs as the dataset needs (2 for MNIST)."""
    batch_size: int = 128
    """An epoch's last batch may be smaller, down to half of it."""
    dropout: float | None = None
    """Replaces the network's own dropout probability."""
    validation: float = 0.0
    """Fraction of the training set that is held back to validate on after each epoch."""
    patience: int = 0
    """Stop after this many epochs without a better validation loss, and keep the best weights; 0: never."""
    average: float = 0.0
    """Decay of a mean of the weights over the steps (0.998: over the last 500 or so), which is then what is validated
    and kept; 0: the last weights."""
    precision: str = "float32"
    """Of the forward and backward pass: "bfloat16" under autocast (weights, loss and evaluation stay float32), "auto"
    where the device has it in hardware."""
    seed: int = 0
    device: str = "auto"
    deterministic: bool = False
    """Only kernels that always give the same bits. The CPU's do anyway; on a GPU it costs time."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        check(self.epochs is None or self.epochs > 0, f"epochs is {self.epochs}, must be > 0")
        check(self.examples is None or self.examples >= 1, f"examples is {self.examples}, must be at least 1")
        check(0 <= self.average < 1, f"average is {self.average}, must be in [0, 1)")
        check(self.precision in PRECISIONS, f"precision is {self.precision!r}, must be one of {', '.join(PRECISIONS)}")
        check(self.batch_size >= 1, f"batch_size is {self.batch_size}, must be at least 1")
        check(self.dropout is None or 0 <= self.dropout < 1, f"dropout is {self.dropout}, must be in [0, 1)")
        check(0 <= self.validation < 1, f"validation is {self.validation}, must be in [0, 1)")
        check(0 <= self.seed < 2**31, f"seed is {self.seed}, must be in [0, 2**31)")
        check(self.patience >= 0, f"patience is {self.patience}, must not be negative")
        check(not self.patience or self.validation > 0, "patience needs a validation fraction")


def configure(
    recipe: str | None = None,
    file: Path | None = None,
    assignments: Iterable[str] = (),
    options: Mapping[str, Any] = {},
) -> TrainConfig:
    """Defaults, below the recipe, below the TOML `file`, below the `assignments` (`section.key=value`), below
    `options` (dotted keys; None is not given). Where no `recipe` is given, `recipe = "…"` in the file may name it, else
    it is the model's own.

    UsageError for what cannot be read, is unknown or makes no sense.
    """
    given = settings.merge(
        settings.read_toml(file) if file else {},
        settings.nested(map(settings.assignment, assignments)),
        settings.nested((key, value) for key, value in options.items() if value is not None),
    )
    named = given.pop("recipe", None)
    named = recipe or named or entry_of(str(given.get("model", DEFAULT))).recipe
    return settings.read(TrainConfig, settings.merge(recipes.settings_of(named), given))
