"""What the leading process of a training does: the steps, and everything that they leave in the run directory."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from deploypipe.contract.run import Run
from deploypipe.data import Dataset
from deploypipe.errors import Interrupted, TrainingError, first_line
from deploypipe.evaluate import Metrics, evaluate, metrics_of, outputs_of
from deploypipe.files import make_folder
from deploypipe.training import checkpoint, pictures, run_folder
from deploypipe.training.clock import Clock
from deploypipe.training.config import TrainConfig
from deploypipe.training.distributed import Group
from deploypipe.training.loop import Exploded, Loop, Progress
from deploypipe.training.memory import batch_that_fits, is_out_of_memory
from deploypipe.training.prepare import Warn
from deploypipe.training.stop import Stop, stop_requests

Listener = Callable[[Progress], None]
OnEvaluation = Callable[[float, Metrics], None]
"""Gets the seconds of training so far and what the test set gives then. The clock of the training stands still
meanwhile."""
EVALUATIONS = 10
"""How many of these a training gets."""
PROGRESS_EVERY = 0.25
"""Seconds between two reports of progress; each one waits for the device."""


class Leader:
    """A loop, and the files that it writes into the run directory while it runs and when it is done."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        folder: Path,
        device: torch.device,
        clock: Clock,
        saved: dict[str, Any] | None,
        warn: Warn,
        on_evaluation: OnEvaluation | None,
        group: Group,
    ) -> None:
        self.config, self.dataset, self.folder, self.device, self.clock = config, dataset, folder, device, clock
        self.on_evaluation, self.warn = on_evaluation, warn
        with clock.phase("setup"):
            self.loop = Loop(config, dataset, device, group)
            if saved:
                self._restore(saved, warn)
        self.saved_step, self.saved_at = self.loop.step, time.monotonic()
        if not saved:
            run_folder.forget_checkpoints(folder)
            self._save()
        # TensorBoard writes from a thread of its own, whose errors come late and long.
        make_folder(folder / run_folder.TENSORBOARD)

    def run(self, on_progress: Listener, draw: bool) -> Run:
        try:
            with stop_requests() as stop:
                self._train(on_progress, stop)
            if self.saved_step != self.loop.step:
                self._save()
            return self._finish(draw)
        except Exploded as cause:
            raise TrainingError(
                f"the loss became {cause.loss:g} in epoch {cause.epoch}, step {cause.step} of {self.loop.steps}",
                f"Lower --learning-rate; {self._kept()}, which --fresh discards.",
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

    def _train(self, on_progress: Listener, stop: Stop) -> None:
        from torch.utils.tensorboard import SummaryWriter

        loop, every = self.loop, self.config.checkpoint
        evaluate_every = max(loop.all_steps // EVALUATIONS, 1)
        with SummaryWriter(str(self.folder / run_folder.TENSORBOARD), purge_step=loop.step + 1) as curves:
            begun, reported, before = time.monotonic(), time.monotonic(), loop.examples
            while not loop.done:
                with self.clock.phase("train"):
                    loop.advance()
                    now, ended = time.monotonic(), loop.at_epoch_end
                    progress = None
                    if ended or now - reported > PROGRESS_EVERY:
                        rate = (loop.examples - before) / (now - begun)
                        place = loop.epoch + 1, loop.epochs, loop.place, loop.steps_now
                        progress = Progress(*place, *loop.standing(), rate)
                        reported = now
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
                        on_progress(progress)
                    if stop.asked:
                        raise KeyboardInterrupt
                except KeyboardInterrupt:
                    self._save()
                    raise
                if self.on_evaluation and loop.step % evaluate_every == 0:
                    self._evaluate(self.on_evaluation)
                due = every.every_steps and loop.step % every.every_steps == 0
                if due or now - self.saved_at > every.every_seconds:
                    self._save()

    def _evaluate(self, on_evaluation: OnEvaluation) -> None:
        with self.clock.phase("train"):
            self.loop.standing()  # waits for the device
        with self.clock.phase("evaluations"):
            module, weights = self.loop.module.eval(), self.loop.weights()
            found = evaluate(lambda batch: functional_call(module, weights, batch), self.dataset.test, self.device)
            module.train()
        on_evaluation(self.clock.read("train"), found)

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
                "launch_id": loop.group.launch_id,
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
        if saved["device"] != str(self.device):
            warn(f"the checkpoint was trained on {saved['device']}, this is {self.device}: "
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

    def _finish(self, draw: bool) -> Run:
        loop = self.loop
        loop.module.load_state_dict(loop.best if self.config.patience and loop.best else loop.weights())
        loop.module.eval()
        with self.clock.phase("evaluate"):
            outputs = outputs_of(loop.module, self.dataset.test, self.device)
            metrics = metrics_of(outputs, self.dataset.test)
        with self.clock.phase("write"):
            run_folder.write_samples(self.dataset, self.folder)
            digest = run_folder.write_weights(self.folder, loop.module)
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
            "phases": self._phases(),
        }
        run = run_folder.write_run(self.folder, self.config, digest, facts)
        if not draw:
            return run
        try:
            with self.clock.phase("pictures"):
                self._draw(outputs, metrics)
            return run_folder.write_run(self.folder, self.config, digest, {**facts, "phases": self._phases()})
        except Exception as cause:  # the run is complete: no picture is worth losing it
            self.warn(f"the pictures could not be drawn: {type(cause).__name__}: {first_line(cause)}")
            return run

    def _phases(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in self.clock.seconds.items()}

    def _draw(self, outputs: Tensor, metrics: Metrics) -> None:
        loop, test, classes = self.loop, self.dataset.test, self.dataset.classes
        drawn = [pictures.curves(self.folder / pictures.CURVES, loop.by_step(), loop.steps, loop.history)]
        if metrics.confusion:
            drawn.append(pictures.confusion(self.folder / pictures.CONFUSION, metrics.confusion, classes))
        if test.inputs.dtype == torch.uint8:
            drawn.append(pictures.mistakes(self.folder / pictures.MISTAKES, test, outputs, classes))
        pictures.to_tensorboard(self.folder / run_folder.TENSORBOARD, drawn, loop.step)
