"""Training: a dataset becomes a run directory.

The data stays on the device as it is (`uint8`), batches are drawn by index and augmented as tensors: nothing runs in
Python per image. Every epoch starts from a state that its number and the seed determine, so a training that was
stopped and resumed gives the same weights as one that was not.
"""

import dataclasses
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from deploypipe import data, runs
from deploypipe.data import Dataset, Split
from deploypipe.errors import Interrupted, TrainingError, UsageError, first_line
from deploypipe.evaluate import evaluate
from deploypipe.files import atomic_path, check_shape, make_folder, sha256_file, write_json
from deploypipe.models import DEFAULT, entry_of
from deploypipe.runs import Run

CHECKPOINT_SCHEMA = "deploypipe.checkpoint/1"
CHECKPOINT = {
    "config": dict,
    "dataset_sha256": str,
    "epoch": int,
    "history": [dict],
    "module": dict,
    "optimizer": dict,
    "scheduler": dict | None,
    "best": dict | None,
    "best_loss": float,
    "epochs_without_gain": int,
}

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], float]] = {
    # name: class, learning rate when none is given
    "sgd": (torch.optim.SGD, 0.05),
    "adam": (torch.optim.Adam, 2e-3),
    "adamw": (torch.optim.AdamW, 2e-3),
    "adagrad": (torch.optim.Adagrad, 1e-2),
    "adadelta": (torch.optim.Adadelta, 1.0),
}
FUSED = {"cpu": ("sgd", "adam", "adamw", "adagrad"), "cuda": ("sgd", "adam", "adamw")}
"""Where PyTorch has an optimizer's whole step as one kernel."""
AGAIN = "Start again without --resume."
SCHEDULES = ("one-cycle", "cosine", "step", "constant")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights, besides versions and hardware. Defaults live here only."""

    model: str = DEFAULT
    data: str = "auto"
    """A dataset's name, "auto" for the model's own default."""
    data_dir: str | None = None
    epochs: int | None = None
    """None: as many as the dataset needs (2 for MNIST)."""
    batch_size: int = 128
    optimizer: str | None = None
    """None: the model's own ("adam", "sgd" for the regression)."""
    learning_rate: float | None = None
    """The peak of the schedule. None: the optimizer's own default."""
    momentum: float = 0.9
    """SGD only."""
    schedule: str = "one-cycle"
    l1: float = 0.0
    """Times the sum of |w|, added to the loss."""
    l2: float = 0.0
    """Weight decay."""
    dropout: float | None = None
    """Replaces the network's own dropout probability."""
    shift: float = 0.0
    """Augmentation: each image moved by up to this many pixels, each way."""
    rotate: float = 0.0
    """Augmentation: each image turned by up to this many degrees, each way."""
    scale: float = 0.0
    """Augmentation: each image enlarged or shrunk by up to this fraction."""
    validation: float = 0.0
    """Fraction of the training set that is held back to validate on after each epoch."""
    patience: int = 0
    """Stop after this many epochs without a better validation loss, and keep the best weights; 0: never."""
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        def check(holds: bool, what: str) -> None:
            if not holds:
                raise UsageError(f"bad training configuration: {what}")

        check(self.epochs is None or self.epochs >= 1, f"epochs is {self.epochs}, must be at least 1")
        check(self.batch_size >= 1, f"batch_size is {self.batch_size}, must be at least 1")
        check(
            self.optimizer in (None, *OPTIMIZERS),
            f"optimizer is {self.optimizer!r}, must be one of {', '.join(OPTIMIZERS)}",
        )
        check(self.schedule in SCHEDULES, f"schedule is {self.schedule!r}, must be one of {', '.join(SCHEDULES)}")
        check(
            self.learning_rate is None or self.learning_rate > 0, f"learning_rate is {self.learning_rate}, must be > 0"
        )
        check(self.dropout is None or 0 <= self.dropout < 1, f"dropout is {self.dropout}, must be in [0, 1)")
        check(0 <= self.validation < 1, f"validation is {self.validation}, must be in [0, 1)")
        check(0 <= self.scale < 1, f"scale is {self.scale}, must be in [0, 1)")
        check(min(self.l1, self.l2, self.momentum, self.shift, self.rotate) >= 0,
              "l1, l2, momentum, shift and rotate must not be negative")  # fmt: skip
        check(0 <= self.seed < 2**31, f"seed is {self.seed}, must be in [0, 2**31)")
        check(self.patience >= 0, f"patience is {self.patience}, must not be negative")
        check(not self.patience or self.validation > 0, "patience needs a validation fraction")


@dataclass(frozen=True)
class Progress:
    """Where a training is, told a few times a second."""

    epoch: int
    epochs: int
    step: int
    steps: int
    """Of this epoch."""
    loss: float
    accuracy: float | None
    images_per_second: float


Report = Callable[[Progress], None]


def train(
    config: TrainConfig,
    out: Path | None = None,
    *,
    resume: bool = False,
    report: Report = lambda progress: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Run:
    """Train `config.model` into the run directory `out` (`runs/<model>-<dataset>` unless given).

    `resume` goes on from that directory's checkpoint (without `out`: the newest below `runs/`), with the configuration
    it holds; a run that is complete is returned as it is. DataError for the data, UsageError for the configuration,
    TrainingError when the loss stops being a number or the checkpoint cannot be used, Interrupted on Ctrl-C with the
    last epoch's checkpoint kept.
    """
    checkpoint = None
    if resume:
        path = _resumable(out)
        out = path.parent
        config, checkpoint = _load_checkpoint(path)
        complete = _completed(out, checkpoint)
        if complete:
            return complete
    if config.data_dir:
        # Later verbs may run in another folder.
        config = dataclasses.replace(config, data_dir=str(Path(config.data_dir).resolve()))
    entry = entry_of(config.model)
    if not entry.datasets:
        return _untrained(config, out or runs.ROOT / config.model)
    wanted = entry.datasets[0] if config.data == "auto" else config.data
    if wanted not in entry.datasets:
        raise UsageError(f"{config.model} does not train on {wanted!r}", f"It trains on: {', '.join(entry.datasets)}.")
    dataset = data.load(wanted, Path(config.data_dir) if config.data_dir else None, warn)
    if checkpoint and checkpoint["dataset_sha256"] != dataset.sha256:
        raise TrainingError(f"the dataset {dataset.name} is not the one that {out}/checkpoint.pt was trained on: its "
                            "sha256 differs", "Bring that one back, or start again without --resume.")  # fmt: skip
    # From here on the configuration says what is really used.
    config = dataclasses.replace(
        config,
        data=dataset.name,
        epochs=config.epochs or data.source_of(dataset.name).epochs,
        optimizer=config.optimizer or entry.optimizer,
    )
    folder = out or runs.ROOT / f"{config.model}-{dataset.name}"
    loop = _Loop(config, dataset, folder, checkpoint)
    try:
        loop.run(report)
    except KeyboardInterrupt:
        where = f"{folder}/checkpoint.pt has epoch {loop.epoch}" if loop.epoch else "no epoch was finished"
        again = f"Go on with `deploypipe train --resume --out {folder}`." if loop.epoch else ""
        raise Interrupted(f"training interrupted; {where}", again) from None
    return loop.finish()


class _Loop:
    def __init__(self, config: TrainConfig, dataset: Dataset, folder: Path, checkpoint: dict[str, Any] | None) -> None:
        self.config, self.dataset, self.folder = config, dataset, folder
        self.device = resolve_device(config.device)
        self.started = time.perf_counter()
        torch.manual_seed(config.seed)
        self.module = entry_of(config.model).build()
        for layer in self.module.modules():
            if isinstance(layer, nn.Dropout) and config.dropout is not None:
                layer.p = config.dropout
        self.training, self.validation = _split(dataset.train, config)
        if self.training.inputs.dtype == torch.uint8:
            pixels = self.training.inputs.float()
            self.module.mean.fill_(pixels.mean())  # type: ignore[operator]
            self.module.std.fill_(pixels.std())  # type: ignore[operator]
        self.module.to(self.device).to(memory_format=torch.channels_last)
        self.inputs, self.targets = self.training.inputs.to(self.device), self.training.targets.to(self.device)
        self.classify = not self.targets.is_floating_point()
        self.steps = math.ceil(len(self.training) / config.batch_size)
        assert config.epochs is not None
        self.epochs = config.epochs
        self.optimizer = _optimizer(config, self.module)
        self.scheduler = _scheduler(config, self.optimizer, self.steps * self.epochs)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] | None = None
        self.best_loss, self.epochs_without_gain = math.inf, 0
        if checkpoint:
            self._restore(checkpoint)

    def run(self, report: Report) -> None:
        from torch.utils.tensorboard import SummaryWriter

        curves = self.folder / "tensorboard"
        if not self.epoch:
            shutil.rmtree(curves, ignore_errors=True)
        make_folder(curves)  # TensorBoard writes from a thread of its own, whose errors come late and long
        with SummaryWriter(str(curves)) as writer:
            while self.epoch < self.epochs and not self._stale():
                row = self._one_epoch(report)
                self.epoch += 1
                self.history.append(row)
                for name, value in row.items():
                    if name != "epoch":
                        writer.add_scalar(name, value, self.epoch)
                self._save_checkpoint()

    def _one_epoch(self, report: Report) -> dict[str, Any]:
        # An epoch's randomness (order, augmentation, dropout) follows from the seed and its number alone.
        torch.manual_seed(self.config.seed * 1_000_003 + self.epoch + 1)
        order = torch.randperm(len(self.training)).to(self.device)
        self.module.train()
        # Sums stay on the device: reading them waits for it, so that is done a few times a second.
        losses, hits = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        seen, begun = 0, time.perf_counter()
        told = begun
        for step, index in enumerate(torch.split(order, self.config.batch_size), start=1):
            inputs, targets = self._augmented(self.inputs[index]), self.targets[index]
            outputs = self.module(inputs)
            loss = F.cross_entropy(outputs, targets) if self.classify else F.mse_loss(outputs, targets)
            total = (
                loss + self.config.l1 * sum(p.abs().sum() for p in self.module.parameters()) if self.config.l1 else loss
            )
            self.optimizer.zero_grad()
            torch.autograd.backward(total)
            self.optimizer.step()
            if self.scheduler:
                self.scheduler.step()
            seen += len(index)
            losses += loss.detach() * len(index)
            if self.classify:
                hits += (outputs.detach().argmax(1) == targets).sum()
            now = time.perf_counter()
            if now - told > 0.25 or step == self.steps:
                told = now
                mean = losses.item() / seen
                if not math.isfinite(mean):
                    raise TrainingError(
                        f"the loss became {mean} in epoch {self.epoch + 1}, step {step} of {self.steps}",
                        "Lower --learning-rate; the last checkpoint is kept.",
                    )
                accuracy = hits.item() / seen if self.classify else None
                report(Progress(self.epoch + 1, self.epochs, step, self.steps, mean, accuracy, seen / (now - begun)))
        row: dict[str, Any] = {"epoch": self.epoch + 1, "loss": losses.item() / seen}
        if self.classify:
            row["accuracy"] = hits.item() / seen
        return row | self._validate()

    def _augmented(self, images: Tensor) -> Tensor:
        config = self.config
        if images.dtype != torch.uint8 or not (config.shift or config.rotate or config.scale):
            return images
        return augment(images, shift=config.shift, rotate=config.rotate, scale=config.scale)

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        self.module.eval()
        with torch.no_grad():
            outputs = torch.cat(
                [self.module(batch.to(self.device)).cpu() for batch in torch.split(self.validation.inputs, 1000)]
            )
        targets = self.validation.targets
        loss = (F.cross_entropy if self.classify else F.mse_loss)(outputs, targets).item()
        if loss < self.best_loss:
            self.best_loss, self.epochs_without_gain = loss, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        else:
            self.epochs_without_gain += 1
        found = {"validation_loss": loss}
        if self.classify:
            found["validation_accuracy"] = (outputs.argmax(1) == targets).float().mean().item()
        return found

    def _stale(self) -> bool:
        return bool(self.config.patience) and self.epochs_without_gain >= self.config.patience

    def _save_checkpoint(self) -> None:
        state = {
            "schema": CHECKPOINT_SCHEMA,
            "config": dataclasses.asdict(self.config),
            "dataset_sha256": self.dataset.sha256,
            "epoch": self.epoch,
            "history": self.history,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "best": self.best,
            "best_loss": self.best_loss,
            "epochs_without_gain": self.epochs_without_gain,
        }
        with atomic_path(self.folder / "checkpoint.pt") as temporary:
            torch.save(state, temporary)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        try:
            self.module.load_state_dict(checkpoint["module"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            if self.scheduler:
                self.scheduler.load_state_dict(checkpoint["scheduler"])
        except Exception as cause:
            raise TrainingError(f"{self.folder}/checkpoint.pt does not fit {self.config.model}: {first_line(cause)}",
                                AGAIN) from cause  # fmt: skip
        self.epoch, self.history = checkpoint["epoch"], checkpoint["history"]
        self.best, self.best_loss = checkpoint["best"], checkpoint["best_loss"]
        self.epochs_without_gain = checkpoint["epochs_without_gain"]

    def finish(self) -> Run:
        if self.config.patience and self.best:
            self.module.load_state_dict(self.best)
        self.module.eval()
        _save_samples(self.dataset, self.folder / "samples")
        metrics = evaluate(self.module, self.dataset.test, self.device).to_json()
        dataset = {
            "name": self.dataset.name,
            "sha256": self.dataset.sha256,
            "train": len(self.training),
            "validation": len(self.validation) if self.validation else 0,
            "test": len(self.dataset.test),
            "classes": list(self.dataset.classes),
        }
        seconds = time.perf_counter() - self.started
        return _write_run(
            self.folder, self.config, self.module, dataset, self.history, metrics, str(self.device), seconds
        )


def _save_samples(dataset: Dataset, folder: Path) -> None:
    if dataset.test.inputs.dtype != torch.uint8:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for label in range(len(dataset.classes)):
        first = (dataset.test.targets == label).nonzero()[0, 0]
        with atomic_path(folder / f"{label}.png") as temporary:
            Image.fromarray(dataset.test.inputs[first, 0].numpy()).save(temporary)


def _untrained(config: TrainConfig, folder: Path) -> Run:
    """A model without anything to train still gets a run directory, so that every later verb works on it."""
    if config.data != TrainConfig.data or config.epochs != TrainConfig.epochs:
        raise UsageError(f"{config.model} is not trained: there is nothing to do with a dataset or epochs",
                         "Leave out --data and --epochs.")  # fmt: skip
    torch.manual_seed(config.seed)
    return _write_run(folder, config, entry_of(config.model).build(), None, [], {}, "cpu", 0.0)


def _write_run(
    folder: Path,
    config: TrainConfig,
    module: nn.Module,
    dataset: dict[str, Any] | None,
    history: list[dict[str, Any]],
    metrics: dict[str, Any],
    device: str,
    seconds: float,
) -> Run:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    # Artifacts and verdicts of the weights that are replaced now would no longer be this run's.
    shutil.rmtree(folder / "exports", ignore_errors=True)
    (folder / "parity.json").unlink(missing_ok=True)
    with atomic_path(folder / "weights.safetensors") as temporary:
        temporary.write_bytes(to_safetensors(weights))
    document = {
        "schema": runs.SCHEMA,
        "model": config.model,
        "config": dataclasses.asdict(config),
        "seed": config.seed,
        "dataset": dataset,
        "epochs": history,
        "metrics": metrics,
        "weights_sha256": sha256_file(folder / "weights.safetensors"),
        "device": device,
        "seconds": round(seconds, 3),
        "versions": runs.versions(),
        "git_commit": runs.git_commit(),
    }
    write_json(folder / "run.json", document)
    return runs.open_run(folder)


def _resumable(out: Path | None) -> Path:
    if out is not None:
        return out / "checkpoint.pt"
    found = sorted(runs.ROOT.glob("*/checkpoint.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise TrainingError(f"no checkpoint in {runs.ROOT.resolve()} to resume from", "Start with `deploypipe train`.")
    return found[-1]


def _completed(folder: Path, checkpoint: dict[str, Any]) -> Run | None:
    """The run in `folder`, if it is what this checkpoint led to: run.json is written when no epoch is left."""
    try:
        run = runs.open_run(folder)
    except UsageError:
        return None
    same = (run.document["config"], run.document["epochs"]) == (checkpoint["config"], checkpoint["history"])
    return run if same and run.has_its_weights() else None


def _load_checkpoint(path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    if not path.is_file():
        raise TrainingError(f"{path} does not exist", AGAIN)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:
        raise TrainingError(f"{path} cannot be read: {first_line(cause)}", AGAIN) from cause
    if not isinstance(checkpoint, dict) or checkpoint.get("schema") != CHECKPOINT_SCHEMA:
        raise TrainingError(f"{path} is not a {CHECKPOINT_SCHEMA!r} file", AGAIN)
    try:
        check_shape(checkpoint, CHECKPOINT)
        fields = {field.name for field in dataclasses.fields(TrainConfig)}
        if other := fields ^ set(checkpoint["config"]):
            raise ValueError(f"its configuration is another version's ({', '.join(sorted(map(str, other)))})")
        config = TrainConfig(**checkpoint["config"])
        entry_of(config.model)
    except (ValueError, TypeError, UsageError) as cause:
        raise TrainingError(f"{path} cannot be resumed: {first_line(cause)}", AGAIN) from cause
    return config, checkpoint


def resolve_device(name: str) -> torch.device:
    """ "auto" is the GPU where there is one. UsageError for a device that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name.partition(":")[0], False):
        usable = ", ".join(device for device, usable in there.items() if usable)
        raise UsageError(f"device {name!r} is not there", f"Usable here: {usable}.")
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise UsageError(f"{name!r} is no device", "Examples: cpu, cuda, cuda:1.") from cause
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} is not there", f"There are {torch.cuda.device_count()} GPUs, from cuda:0.")
    return device


def _split(split: Split, config: TrainConfig) -> tuple[Split, Split | None]:
    held = round(len(split) * config.validation)
    if not held:
        return split, None
    if held == len(split):
        raise UsageError(f"validation is {config.validation}: of {len(split):,} examples none is left to train on",
                         "Hold back fewer.")  # fmt: skip
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(config.seed))
    kept, back = order[held:], order[:held]
    return Split(split.inputs[kept], split.targets[kept]), Split(split.inputs[back], split.targets[back])


def _optimizer(config: TrainConfig, module: nn.Module) -> torch.optim.Optimizer:
    assert config.optimizer is not None
    kind, default = OPTIMIZERS[config.optimizer]
    options: dict[str, Any] = {"lr": config.learning_rate or default, "weight_decay": config.l2}
    if config.optimizer == "sgd":
        options["momentum"] = config.momentum
    device = next(module.parameters()).device.type
    if config.optimizer in FUSED.get(device, ()):
        options["fused"] = True
    return kind(module.parameters(), **options)


def _scheduler(config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler | None:
    if config.schedule == "one-cycle":
        peak = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, peak, total_steps=max(steps, 1), cycle_momentum=False)
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps, 1))
    if config.schedule == "step":
        return lr_scheduler.StepLR(optimizer, step_size=max(steps // 3, 1), gamma=0.1)
    return None


def augment(images: Tensor, *, shift: float, rotate: float, scale: float) -> Tensor:
    """Each of `uint8 [n, 1, height, width]` moved, turned and scaled by amounts of its own, drawn evenly."""
    count, height, width = len(images), images.shape[2], images.shape[3]

    def draw(limit: float) -> Tensor:
        return (torch.rand(count, device=images.device) * 2 - 1) * limit

    angle, factor = draw(math.radians(rotate)), 1 + draw(scale)
    cosine, sine = angle.cos() / factor, angle.sin() / factor
    # affine_grid measures in halves of the image.
    across, down = draw(shift * 2 / width), draw(shift * 2 / height)
    theta = torch.stack([cosine, -sine, across, sine, cosine, down], dim=1).reshape(count, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, align_corners=False)
    return moved.round().clamp(0, 255).to(torch.uint8)
