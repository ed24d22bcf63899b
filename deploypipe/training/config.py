"""Everything that decides a training, as dataclasses. Reading this needs no torch: the command line makes its options
of these fields, and shows what stands below each of them as its help."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deploypipe.models.zoo import DEFAULT, entry_of
from deploypipe.training import parsing, recipes
from deploypipe.training.parsing import require
from deploypipe.training.schedules import SCHEDULES, Schedule

RATES = {"sgd": 0.05, "adam": 2e-3, "adamw": 2e-3, "adagrad": 1e-2, "adadelta": 1.0, "muon": 0.1}
"""Each optimizer's learning rate when none is given."""
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class OptimizerConfig:
    name: str | None = None
    """sgd, adam, adamw, adagrad, adadelta or muon. None: the model's own ("adam", "sgd" for the regression)."""
    lr: float | None = None
    """The learning rate at the peak of the schedule. None: the optimizer's own default."""
    momentum: float = 0.9
    """Momentum of SGD and Muon."""
    nesterov: bool = False
    """Nesterov's momentum for SGD; Muon's always is."""
    beta1: float = 0.9
    """Of Adam and AdamW: how slowly the mean of the gradient moves."""
    beta2: float = 0.999
    """Of Adam and AdamW: how slowly the mean of the gradient's square moves."""
    weight_decay: float = 0.0
    """L2 regularisation."""
    adam_lr: float | None = None
    """Muon trains matrices and kernels; this is the peak for all else and the last layer, which Adam trains. None:
    Adam's own default."""

    def __post_init__(self) -> None:
        require(self.name in (None, *RATES), f"optimizer.name is {self.name!r}, must be one of {', '.join(RATES)}")
        require(self.lr is None or self.lr > 0, f"optimizer.lr is {self.lr}, must be > 0")
        require(self.adam_lr is None or self.adam_lr > 0, f"optimizer.adam_lr is {self.adam_lr}, must be > 0")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optimizer.{name} is {getattr(self, name)}, must be in [0, 1)")
        require(self.momentum > 0 or not self.nesterov, "optimizer.nesterov needs a momentum")
        require(self.momentum >= 0, f"optimizer.momentum is {self.momentum}, must not be negative")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}, must not be negative")


@dataclass(frozen=True)
class ScheduleConfig:
    name: str = "one-cycle"
    """one-cycle, linear, cosine, step or constant."""
    warmup: float | None = None
    """Fraction of the training in which the rate rises to its peak. None: the schedule's own."""
    start: float | None = None
    """Where the rate begins, as a fraction of the peak. None: the schedule's own."""
    final: float | None = None
    """Where the rate ends, as a fraction of the peak. None: the schedule's own."""

    def __post_init__(self) -> None:
        require(self.name in SCHEDULES, f"schedule.name is {self.name!r}, must be one of {', '.join(SCHEDULES)}")
        for name, value in self._given().items():
            require(0 <= value <= 1, f"schedule.{name} is {value}, must be in [0, 1]")

    def _given(self) -> dict[str, float]:
        values = {name: getattr(self, name) for name in ("warmup", "start", "final")}
        return {name: value for name, value in values.items() if value is not None}

    def share(self, done: float) -> float:
        """Of the peak rate, when this fraction of the training is done (0 to 1)."""
        chosen: Schedule = replace(SCHEDULES[self.name], **self._given())  # type: ignore[arg-type]
        return chosen.share(done)


@dataclass(frozen=True)
class LossConfig:
    l1: float = 0.0
    """L1 regularisation: times the sum of |w|, added to the loss."""
    label_smoothing: float = 0.0
    """How much of the right class's probability is wanted for all classes alike."""

    def __post_init__(self) -> None:
        require(0 <= self.label_smoothing < 1, f"loss.label_smoothing is {self.label_smoothing}, must be in [0, 1)")
        require(self.l1 >= 0, f"loss.l1 is {self.l1}, must not be negative")


@dataclass(frozen=True)
class AugmentConfig:
    shift: float = 0.0
    """Each image is moved by up to this many pixels, each way."""
    rotate: float = 0.0
    """Each image is turned by up to this many degrees, each way."""
    scale: float = 0.0
    """Each image is enlarged or shrunk by up to this fraction."""

    def __post_init__(self) -> None:
        require(self.shift >= 0, f"augment.shift is {self.shift}, must not be negative")
        require(self.rotate >= 0, f"augment.rotate is {self.rotate}, must not be negative")
        require(0 <= self.scale < 1, f"augment.scale is {self.scale}, must be in [0, 1)")

    def __bool__(self) -> bool:
        return bool(self.shift or self.rotate or self.scale)


@dataclass(frozen=True)
class CheckpointConfig:
    """When a checkpoint is written, besides at the start, at the end and when a training is stopped."""

    every_steps: int | None = None
    """Write a checkpoint after so many steps. None: by time only."""
    every_seconds: float = 30.0
    """Write a checkpoint after so many seconds; a short training spends no time on them."""

    def __post_init__(self) -> None:
        steps, seconds = self.every_steps, self.every_seconds
        require(steps is None or steps >= 1, f"checkpoint.every_steps is {steps}, must be at least 1")
        require(seconds >= 0, f"checkpoint.every_seconds is {seconds}, must not be negative")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights, besides versions and hardware. Defaults live here and in its sections."""

    model: str = DEFAULT
    """A network of the zoo: see `deploypipe models`."""
    data: str = "auto"
    """A dataset: see `deploypipe datasets`. "auto" is the model's own default."""
    data_dir: str | None = None
    """Folder of the datasets. None: $DEPLOYPIPE_DATA_DIR, else the user's cache folder."""
    epochs: float | None = None
    """How often the training set is gone through; a fraction is allowed. None: what `examples` come to."""
    examples: int | None = None
    """How many examples to train on in all, however large the dataset is. None: as many epochs as the dataset needs (2
    for MNIST)."""
    batch_size: int = 128
    """Examples in a batch; an epoch's last one may be smaller, down to half of it."""
    dropout: float | None = None
    """Replaces the network's own dropout probability. None: it stays."""
    validation: float = 0.0
    """Fraction of the training set that is held back to validate on after each epoch."""
    patience: int = 0
    """Stop after this many epochs without a better validation loss, and keep the best weights; 0: never."""
    average: float = 0.0
    """Decay of a mean of the weights over the steps (0.998: over the last 500 or so), which is then what is validated
    and kept; 0: the last weights."""
    precision: str = "float32"
    """Of the forward and backward pass: float32, bfloat16 (under autocast: weights, loss and evaluation stay float32),
    or auto: bfloat16 where the device has it in hardware."""
    seed: int = 0
    """Decides every random number."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    deterministic: bool = False
    """Only kernels that always give the same bits. The CPU's do anyway; on a GPU it costs time."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        require(self.epochs is None or self.epochs > 0, f"epochs is {self.epochs}, must be > 0")
        require(self.examples is None or self.examples >= 1, f"examples is {self.examples}, must be at least 1")
        require(0 <= self.average < 1, f"average is {self.average}, must be in [0, 1)")
        known = ", ".join(PRECISIONS)
        require(self.precision in PRECISIONS, f"precision is {self.precision!r}, must be one of {known}")
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}, must be at least 1")
        require(self.dropout is None or 0 <= self.dropout < 1, f"dropout is {self.dropout}, must be in [0, 1)")
        require(0 <= self.validation < 1, f"validation is {self.validation}, must be in [0, 1)")
        require(0 <= self.seed < 2**31, f"seed is {self.seed}, must be in [0, 2**31)")
        require(self.patience >= 0, f"patience is {self.patience}, must not be negative")
        require(not self.patience or self.validation > 0, "patience needs a validation fraction")


NOT_DECISIVE = ("data_dir", "checkpoint")
"""Settings that do not change the weights: where the data lies, and when checkpoints are written."""


def decisive(config: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration as a dictionary, what decides the weights."""
    return {key: value for key, value in config.items() if key not in NOT_DECISIVE}


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
    given = parsing.merge(
        parsing.read_toml(file) if file else {},
        parsing.nested(map(parsing.assignment, assignments)),
        parsing.nested((key, value) for key, value in options.items() if value is not None),
    )
    named = given.pop("recipe", None)
    named = recipe or named or entry_of(str(given.get("model", DEFAULT))).recipe
    return parsing.as_dataclass(TrainConfig, parsing.merge(recipes.settings_of(named), given))
