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

from deploypipe import data, runs
from deploypipe.data import Dataset
from deploypipe.errors import Interrupted, TrainingError, UsageError, first_line
from deploypipe.evaluate import evaluate
from deploypipe.files import make_folder
from deploypipe.models import entry_of
from deploypipe.runs import Run
from deploypipe.training import checkpoint, record, settings
from deploypipe.training.clock import Clock
from deploypipe.training.config import TrainConfig, configure
from deploypipe.training.device import deterministic_kernels, resolve_device, resolve_precision
from deploypipe.training.loop import Exploded, Loop, Progress
from deploypipe.training.stop import Stop, stop_requests

__all__ = ["Progress", "Report", "TrainConfig", "configure", "resolve_device", "train"]

Report = Callable[[Progress], None]
Warn = Callable[[str], None]
TOLD_EVERY = 0.25
"""Seconds between two reports; each one waits for the device."""


def train(
    config: TrainConfig,
    out: Path | None = None,
    *,
    resume: bool = False,
    report: Report = lambda progress: None,
    warn: Warn = lambda message: None,
) -> Run:
    """Train `config.model` into the run directory `out` (`runs/<model>-<dataset>` unless given).

    `resume` goes on from that directory's checkpoint (without `out`: the newest below `runs/`), with the configuration
    it holds; a run that is complete is returned as it is. DataError for the data, UsageError for the configuration,
    TrainingError when the loss stops being a number, the checkpoint cannot be used or another training is at work in
    that directory, Interrupted on Ctrl-C or SIGTERM with a checkpoint of the last step.
    """
    clock = Clock()
    saved = None
    if resume:
        out = out or checkpoint.newest(runs.ROOT)
        saved = checkpoint.load(out, warn)[1]
        config = _config_of(saved, out)
        complete = _completed(out, saved)
        if complete:
            return complete
    if config.data_dir:
        # Later verbs may run in another folder.
        config = dataclasses.replace(config, data_dir=str(Path(config.data_dir).resolve()))
    if not entry_of(config.model).datasets:
        return _untrained(config, out or runs.ROOT / config.model)
    with clock.phase("load"):
        dataset = _dataset(config, warn)
    device = resolve_device(config.device)
    config = _resolved(config, dataset, device)
    if saved and saved["dataset"]["sha256"] != dataset.sha256:
        raise TrainingError(f"the dataset {dataset.name} is not the one that {out}/{checkpoint.LAST} was trained on: "
                            "its sha256 differs", "Bring that one back, or start again without --resume.")  # fmt: skip
    folder = out or runs.ROOT / f"{config.model}-{dataset.name}"
    make_folder(folder / "tensorboard")  # TensorBoard writes from a thread of its own, whose errors come late and long
    with _alone(folder), deterministic_kernels(config.deterministic):
        return _Training(config, dataset, folder, device, clock, saved, warn).run(report)


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
    ) -> None:
        self.config, self.dataset, self.folder, self.device, self.clock = config, dataset, folder, device, clock
        with clock.phase("setup"):
            self.loop = Loop(config, dataset, device)
            if saved:
                self._restore(saved, warn)
        self.saved_step, self.saved_at = self.loop.step, time.monotonic()
        if not saved:
            # What lies here of another training must never be taken for this one's.
            checkpoint.remove(folder)
            shutil.rmtree(folder / "tensorboard")
            self._save()

    def run(self, report: Report) -> Run:
        try:
            with stop_requests() as stop:
                self._train(report, stop)
            if self.saved_step != self.loop.step:
                self._save()
            return self._finish()
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

    def _train(self, report: Report, stop: Stop) -> None:
        from torch.utils.tensorboard import SummaryWriter

        loop, every = self.loop, self.config.checkpoint
        with SummaryWriter(str(self.folder / "tensorboard"), purge_step=loop.epoch + 1) as curves:
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
                if ended:
                    for name, value in row.items():
                        if name != "epoch":
                            curves.add_scalar(name, value, loop.epoch)
                    begun, before = time.monotonic(), loop.examples
                try:
                    if progress:
                        report(progress)
                    if stop.asked:
                        raise KeyboardInterrupt
                except KeyboardInterrupt:
                    self._save()
                    raise
                due = every.every_steps and loop.step % every.every_steps == 0
                if due or now - self.saved_at > every.every_seconds:
                    self._save()

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

    def _finish(self) -> Run:
        loop = self.loop
        loop.module.load_state_dict(loop.best if self.config.patience and loop.best else loop.weights())
        loop.module.eval()
        with self.clock.phase("evaluate"):
            metrics = evaluate(loop.module, self.dataset.test, self.device).to_json()
        with self.clock.phase("write"):
            record.write_samples(self.dataset, self.folder / "samples")
            digest = record.write_weights(self.folder, loop.module)
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
            "metrics": metrics,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "seconds": round(seconds, 3),
            "images_per_second": round(loop.examples / seconds),
            "phases": {name: round(value, 3) for name, value in self.clock.seconds.items()},
        }
        return record.write_run(self.folder, self.config, digest, facts)


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


def _dataset(config: TrainConfig, warn: Warn) -> Dataset:
    trains_on = entry_of(config.model).datasets
    wanted = trains_on[0] if config.data == "auto" else config.data
    if wanted not in trains_on:
        raise UsageError(f"{config.model} does not train on {wanted!r}", f"It trains on: {', '.join(trains_on)}.")
    return data.load(wanted, Path(config.data_dir) if config.data_dir else None, warn)


def _resolved(config: TrainConfig, dataset: Dataset, device: torch.device) -> TrainConfig:
    """The configuration as it is really used: nothing left to the model or the dataset."""
    optimizer = config.optimizer.name or entry_of(config.model).optimizer
    wanted = config.examples / len(dataset.train) if config.examples else data.source_of(dataset.name).epochs
    return dataclasses.replace(
        config,
        data=dataset.name,
        epochs=float(config.epochs or wanted),
        precision=resolve_precision(config.precision, device),
        optimizer=dataclasses.replace(config.optimizer, name=optimizer),
    )


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
        config = settings.read(TrainConfig, saved["config"])
        if dataclasses.asdict(config) != saved["config"]:
            raise ValueError("its configuration is another version's")
        entry_of(config.model)
    except (ValueError, UsageError) as cause:
        raise TrainingError(f"{path} cannot be resumed: {first_line(cause)}", checkpoint.AGAIN) from cause
    return config


def _completed(folder: Path, saved: dict[str, Any]) -> Run | None:
    """The run in `folder`, if it is what this checkpoint led to: run.json is written when no epoch is left."""
    try:
        run = runs.open_run(folder)
    except UsageError:
        return None
    same = (run.document["config"], run.document["epochs"]) == (saved["config"], saved["history"])
    return run if same and run.has_its_weights() else None
