"""Training: a dataset becomes a run directory.

Every random number follows from the seed and the step, and the state after any step can be saved: a training that was
stopped and resumed gives the same weights as one that was not.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.func import functional_call

from deploypipe.contract.run import ROOT, Run, open_run
from deploypipe.data import Dataset, dataset_of, load_dataset, source_of
from deploypipe.errors import Interrupted, TrainingError, UsageError, first_line
from deploypipe.evaluate import Metrics, evaluate, measure, outputs_of
from deploypipe.files import make_folder
from deploypipe.models import entry_of
from deploypipe.training import checkpoint, lr_finder, record, settings
from deploypipe.training import pictures as drawing
from deploypipe.training.clock import Clock
from deploypipe.training.config import TrainConfig, configure
from deploypipe.training.device import deterministic_kernels, resolve_device, resolve_precision
from deploypipe.training.distributed import ALONE, Group
from deploypipe.training.loop import Exploded, Loop, Progress
from deploypipe.training.lr_finder import Finding
from deploypipe.training.memory import batch_that_fits, is_out_of_memory
from deploypipe.training.stop import Stop, stop_requests

__all__ = [
    "Finding", "Progress", "Report", "TrainConfig", "configure", "find_learning_rate", "repeat", "resolve_device",
    "train",
]  # fmt: skip

Report = Callable[[Progress], None]
Warn = Callable[[str], None]
Watch = Callable[[float, Metrics], None]
"""Seconds of training so far, and what the test set gives then; the clock of the training stands still meanwhile."""
LOOKS = 10
"""How many of these a training gets."""
PICTURES = CURVES, CONFUSION, MISTAKES = "curves.png", "confusion.png", "mistakes.png"
TOLD_EVERY = 0.25
"""Seconds between two reports; each one waits for the device."""


def train(
    config: TrainConfig,
    out: Path | None = None,
    *,
    resume: bool = False,
    pictures: bool = False,
    report: Report = lambda progress: None,
    warn: Warn = lambda message: None,
    watch: Watch | None = None,
    group: Group = ALONE,
) -> Run:
    """Train `config.model` into the run directory `out` (`runs/<model>-<dataset>` unless given).

    `resume` goes on from that directory's checkpoint (without `out`: the newest below `runs/`), with the configuration
    it holds; a run that is complete is returned as it is. `pictures` draws curves, confusion matrix and worst mistakes.

    DataError for the data, UsageError for the configuration, TrainingError when the loss stops being a number, the
    memory is not enough, the checkpoint cannot be used or another training is at work in that directory, Interrupted on
    Ctrl-C or SIGTERM with a checkpoint of the last step.

    Each process of a `group` calls this with the same arguments and gets the same run, which its leader writes. A group
    that restarts what it lost goes on by itself where the directory holds a checkpoint of the same configuration and
    data.
    """
    clock = Clock()
    saved = None
    if resume:
        out = out or checkpoint.newest(ROOT)
        saved = checkpoint.load(out, warn)[1]
        config = _config_of(saved, out)
        complete = _completed(out, saved)
        if complete:
            return complete
    if not entry_of(config.model).datasets:
        return _untrained(config, out or ROOT / config.model)
    with clock.phase("load"), group.one_before_the_others():
        config, dataset, device = _prepared(config, warn)
    device = group.place(device)
    if saved and saved["dataset"]["sha256"] != dataset.sha256:
        raise TrainingError(f"the dataset {dataset.name} is not the one that {out}/{checkpoint.LAST} was trained on: "
                            "its sha256 differs", "Bring that one back, or start again without --resume.")  # fmt: skip
    folder = out or _folder(config)
    if group.restarts and not saved and group.from_leader(lambda: _goes_on(folder, config, dataset)):
        saved = checkpoint.load(folder, warn)[1]
        complete = _completed(folder, saved)
        if complete:
            return complete
        warn(f"going on with the training in {folder}, from step {saved['step']}")
    with deterministic_kernels(config.deterministic):
        if not group.leads:
            return _follow(config, dataset, folder, device, saved, group)
        # TensorBoard writes from a thread of its own, whose errors come late and long.
        make_folder(folder / "tensorboard")
        with _alone(folder):
            run = _Training(config, dataset, folder, device, clock, saved, warn, watch, group).run(report, pictures)
    group.wait()
    return run


def find_learning_rate(
    config: TrainConfig, out: Path | None = None, *, warn: Warn = lambda message: None
) -> tuple[Finding, Path]:
    """A range test of `config`, and its picture in `out` (`runs/<model>-<dataset>` unless given). Leaves no run."""
    if not entry_of(config.model).datasets:
        raise UsageError(f"{config.model} is not trained: it has no learning rate")
    config, dataset, device = _prepared(config, warn)
    found = lr_finder.find_learning_rate(config, dataset, device)
    return found, drawing.rates((out or _folder(config)) / "learning-rates.png", found)


def repeat(
    path: Path,
    out: Path | None = None,
    *,
    pictures: bool = False,
    report: Report = lambda progress: None,
    warn: Warn = lambda message: None,
    group: Group = ALONE,
) -> tuple[Run, bool]:
    """The run of this run.json (or its folder) again, into `out` (`<its folder>-again` unless given); and whether the
    weights are the same to the bit, what may be the reason for others said through `warn`.

    UsageError where that is no run of this version or `out` is its folder, DataError where the data are others.
    """
    first = open_run(path if path.is_dir() else path.parent)
    folder = out or first.folder.with_name(f"{first.folder.resolve().name}-again")
    if folder.resolve() == first.folder.resolve():
        raise UsageError(f"{folder} is the run that is to be repeated", "Give another --out.")
    try:
        config = settings.read(TrainConfig, first.document["config"], whole=True)
    except UsageError as cause:
        raise UsageError(f"{first.folder}/run.json is another version's: {cause.message}", cause.remedy) from cause
    dataset_of(first)
    config = dataclasses.replace(config, device=first.document["device"])
    second = train(config, folder, pictures=pictures, report=report, warn=warn, group=group)
    same = first.document["weights_sha256"] == second.document["weights_sha256"]
    if not same:
        kept = ("versions", "threads", "device", "git_commit")
        others = [name for name in kept if first.document.get(name) != second.document.get(name)]
        warn(f"the weights are not those of {first.folder}: " + (f"other {', '.join(others)}" if others else
             "nothing that run.json knows is different, the processor or GPU may be"))  # fmt: skip
    return second, same


def _goes_on(folder: Path, config: TrainConfig, dataset: Dataset) -> bool:
    try:
        saved = checkpoint.load(folder, lambda message: None)[1]
    except TrainingError:
        return False
    return bool(saved["config"] == dataclasses.asdict(config) and saved["dataset"]["sha256"] == dataset.sha256)


def _follow(
    config: TrainConfig,
    dataset: Dataset,
    folder: Path,
    device: torch.device,
    saved: dict[str, Any] | None,
    group: Group,
) -> Run:
    """What the processes of a group do that do not lead: their share of each step."""
    with stop_requests() as stop:
        try:
            loop = Loop(config, dataset, device, group)
            if saved:
                loop.restore(saved)
            while not loop.done:
                loop.advance()
                if loop.at_epoch_end:
                    loop.finish_epoch()
            group.wait()
        except Exploded as cause:
            raise TrainingError(f"the loss became {cause.loss:g}") from None
        except RuntimeError:
            # The leader saves and leaves when it is asked to stop: only then is there nobody left.
            if stop.asked:
                raise Interrupted("training interrupted") from None
            raise
    return open_run(folder)


class _Training:
    """A loop, and what it leaves in the run directory on its way."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        folder: Path,
        device: torch.device,
        clock: Clock,
        saved: dict[str, Any] | None,
        warn: Warn,
        watch: Watch | None,
        group: Group,
    ) -> None:
        self.config, self.dataset, self.folder, self.device, self.clock = config, dataset, folder, device, clock
        self.watch = watch
        with clock.phase("setup"):
            self.loop = Loop(config, dataset, device, group)
            if saved:
                self._restore(saved, warn)
        self.saved_step, self.saved_at = self.loop.step, time.monotonic()
        if not saved:
            # What lies here of another training must never be taken for this one's.
            checkpoint.remove(folder)
            shutil.rmtree(folder / "tensorboard")
            self._save()

    def run(self, report: Report, pictures: bool) -> Run:
        try:
            with stop_requests() as stop:
                self._train(report, stop)
            if self.saved_step != self.loop.step:
                self._save()
            return self._finish(pictures)
        except Exploded as cause:
            raise TrainingError(
                f"the loss became {cause.loss:g} in epoch {cause.epoch}, step {cause.step} of {self.loop.steps}",
                f"Lower --learning-rate; {self._kept()}.",
            ) from None
        except KeyboardInterrupt:
            raise Interrupted(
                f"training interrupted; {self._kept()}",
                f"Go on with `deploypipe train --resume --out {self.folder}`.",
            ) from None
        except (RuntimeError, MemoryError) as cause:
            # In a group no process can try a batch without the others.
            if not is_out_of_memory(cause) or self.loop.group.size > 1:
                raise
        # Not in the handler: what the error's frames held is free by now.
        fitting = batch_that_fits(self.loop)
        raise TrainingError(
            f"a batch of {self.config.batch_size} does not fit into the memory ({self.device})",
            f"--batch-size {fitting} does." if fitting else "Nothing does: take a smaller network.",
        )

    def _train(self, report: Report, stop: Stop) -> None:
        from torch.utils.tensorboard import SummaryWriter

        loop, every = self.loop, self.config.checkpoint
        look = max(loop.all_steps // LOOKS, 1)
        with SummaryWriter(str(self.folder / "tensorboard"), purge_step=loop.step + 1) as curves:
            begun, told, before = time.monotonic(), time.monotonic(), loop.examples
            while not loop.done:
                with self.clock.phase("train"):
                    loop.advance()
                    now, ended = time.monotonic(), loop.at_epoch_end
                    progress = None
                    if ended or now - told > TOLD_EVERY:
                        rate = (loop.examples - before) / (now - begun)
                        place = loop.epoch + 1, loop.epochs, loop.place, loop.steps_now
                        progress = Progress(*place, *loop.standing(), rate)
                        told = now
                    if ended:
                        row = loop.finish_epoch()
                if progress:
                    curves.add_scalar("loss so far in this epoch", progress.loss, loop.step)
                if ended:
                    for name, value in row.items():
                        curves.add_scalar(name, value, loop.step)
                    begun, before = time.monotonic(), loop.examples
                try:
                    if progress:
                        report(progress)
                    if stop.asked:
                        raise KeyboardInterrupt
                except KeyboardInterrupt:
                    self._save()
                    raise
                if self.watch and loop.step % look == 0:
                    self._look(self.watch)
                due = every.every_steps and loop.step % every.every_steps == 0
                if due or now - self.saved_at > every.every_seconds:
                    self._save()

    def _look(self, watch: Watch) -> None:
        with self.clock.phase("train"):
            self.loop.standing()  # waits for the device
        with self.clock.phase("watch"):
            module, weights = self.loop.module.eval(), self.loop.weights()
            found = evaluate(lambda batch: functional_call(module, weights, batch), self.dataset.test, self.device)
            module.train()
        watch(self.clock.read("train"), found)

    def _save(self) -> None:
        loop = self.loop
        with self.clock.phase("train"):
            loop.standing()  # waits for the device
        with self.clock.phase("write"):
            if not loop.is_sound():
                raise Exploded(float("nan"), loop.epoch + 1, loop.place)
            document = {
                "config": dataclasses.asdict(self.config),
                "dataset": {"name": self.dataset.name, "sha256": self.dataset.sha256},
                "device": str(self.device),
                "versions": {"torch": str(torch.__version__)},
                "epoch": loop.epoch,
                "metrics": dict(loop.history[-1]) if loop.history else {},
                "seconds": self.clock.read("train"),
                **loop.state(),
            }
            checkpoint.save(self.folder, document)
            self.saved_step, self.saved_at = loop.step, time.monotonic()

    def _restore(self, saved: dict[str, Any], warn: Warn) -> None:
        if saved["versions"]["torch"] != torch.__version__:
            warn(f"the checkpoint is of torch {saved['versions']['torch']}, this is {torch.__version__}: "
                 "the weights need not come out the same")  # fmt: skip
        try:
            self.loop.restore(saved)
        except Exception as cause:
            raise TrainingError(f"{self.folder}/{checkpoint.LAST} does not fit {self.config.model}: "
                                f"{first_line(cause)}", checkpoint.AGAIN) from cause  # fmt: skip
        self.clock.add("train", saved["seconds"])

    def _kept(self) -> str:
        epoch, step = divmod(self.saved_step, self.loop.steps)
        return f"{self.folder}/{checkpoint.LAST} has epoch {epoch + 1}, step {step} of {self.loop.steps}"

    def _finish(self, pictures: bool) -> Run:
        loop = self.loop
        loop.module.load_state_dict(loop.best if self.config.patience and loop.best else loop.weights())
        loop.module.eval()
        with self.clock.phase("evaluate"):
            outputs = outputs_of(loop.module, self.dataset.test, self.device)
            metrics = measure(outputs, self.dataset.test)
        with self.clock.phase("write"):
            record.write_samples(self.dataset, self.folder / "samples")
            digest = record.write_weights(self.folder, loop.module)
        with self.clock.phase("pictures"):
            for name in PICTURES:
                (self.folder / name).unlink(missing_ok=True)
            if pictures:
                self._draw(outputs, metrics)
        seconds = self.clock.read("train")
        facts = {
            "dataset": {
                "name": self.dataset.name,
                "sha256": self.dataset.sha256,
                "train": len(loop.training),
                "validation": len(loop.validation) if loop.validation else 0,
                "test": len(self.dataset.test),
                "classes": list(self.dataset.classes),
            },
            "epochs": loop.history,
            "metrics": metrics.to_json(),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "seconds": round(seconds, 3),
            "images_per_second": round(loop.examples / seconds),
            "phases": {name: round(value, 3) for name, value in self.clock.seconds.items()},
        }
        return record.write_run(self.folder, self.config, digest, facts)

    def _draw(self, outputs: Tensor, metrics: Metrics) -> None:
        loop, test, classes = self.loop, self.dataset.test, self.dataset.classes
        drawn = [drawing.curves(self.folder / CURVES, loop.by_step(), loop.steps, loop.history)]
        if metrics.confusion:
            drawn.append(drawing.confusion(self.folder / CONFUSION, metrics.confusion, classes))
        if test.inputs.dtype == torch.uint8:
            drawn.append(drawing.mistakes(self.folder / MISTAKES, test, outputs, classes))
        drawing.to_tensorboard(self.folder / "tensorboard", drawn, loop.step)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """TrainingError where another training is within this block. A lock of the operating system, on every platform
    that filelock knows: it ends with its process, however that ends."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError(f"another training is at work in {folder}", "Wait for it, or give another --out.") from None
    try:
        yield
    finally:
        lock.release()


def _prepared(config: TrainConfig, warn: Warn) -> tuple[TrainConfig, Dataset, torch.device]:
    """The data, the device, and the configuration as it is really used: nothing left to the model or the data."""
    entry = entry_of(config.model)
    wanted = entry.datasets[0] if config.data == "auto" else config.data
    if wanted not in entry.datasets:
        raise UsageError(f"{config.model} does not train on {wanted!r}", f"It trains on: {', '.join(entry.datasets)}.")
    device = resolve_device(config.device)
    # Later verbs may run in another folder.
    folder = Path(config.data_dir).resolve() if config.data_dir else None
    dataset = load_dataset(wanted, folder, warn)
    epochs = config.examples / len(dataset.train) if config.examples else source_of(dataset.name).epochs
    config = dataclasses.replace(
        config,
        data=dataset.name,
        data_dir=str(folder) if folder else None,
        epochs=float(config.epochs or epochs),
        precision=resolve_precision(config.precision, device),
        optimizer=dataclasses.replace(config.optimizer, name=config.optimizer.name or entry.optimizer),
    )
    return config, dataset, device


def _folder(config: TrainConfig) -> Path:
    return ROOT / f"{config.model}-{config.data}"


def _untrained(config: TrainConfig, folder: Path) -> Run:
    """A model without anything to train still gets a run directory, so that every later verb works on it."""
    if config.data != TrainConfig.data or config.epochs != TrainConfig.epochs:
        raise UsageError(f"{config.model} is not trained: there is nothing to do with a dataset or epochs",
                         "Leave out --data and --epochs.")  # fmt: skip
    torch.manual_seed(config.seed)
    digest = record.write_weights(folder, entry_of(config.model).build())
    facts: dict[str, Any] = {"dataset": None, "epochs": [], "metrics": {}, "device": "cpu", "seconds": 0.0}
    return record.write_run(folder, config, digest, facts)


def _config_of(saved: dict[str, Any], folder: Path) -> TrainConfig:
    path = folder / checkpoint.LAST
    try:
        config = settings.read(TrainConfig, saved["config"], whole=True)
        entry_of(config.model)
    except UsageError as cause:
        raise TrainingError(f"{path} cannot be resumed: {first_line(cause)}", checkpoint.AGAIN) from cause
    return config


def _completed(folder: Path, saved: dict[str, Any]) -> Run | None:
    """The run in `folder`, if it is what this checkpoint led to: run.json is written when no epoch is left."""
    try:
        run = open_run(folder)
    except UsageError:
        return None
    same = (run.document["config"], run.document["epochs"]) == (saved["config"], saved["history"])
    return run if same and run.has_its_weights() else None
