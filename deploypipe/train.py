"""Training: a dataset becomes a run directory.

Every random number follows from the seed and the step, and the state after any step can be saved: a training that was
stopped and resumed gives the same weights as one that was not.
"""

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from deploypipe.contract.run import ROOT, Run, open_run
from deploypipe.data import Dataset, dataset_of
from deploypipe.errors import TrainingError, UsageError
from deploypipe.models.zoo import entry_of
from deploypipe.training import checkpoint, parsing, pictures, run_folder
from deploypipe.training.clock import Clock
from deploypipe.training.config import TrainConfig, configure, decisive
from deploypipe.training.device import deterministic_kernels, resolve_device
from deploypipe.training.distributed import ALONE, Group
from deploypipe.training.follower import follow
from deploypipe.training.leader import Leader, Listener, OnEvaluation
from deploypipe.training.loop import Progress
from deploypipe.training.prepare import Warn, prepare, resumed_config, run_folder_of
from deploypipe.training.range_test import RangeTest, range_test

__all__ = [
    "Listener", "Progress", "RangeTest", "TrainConfig", "configure", "find_learning_rate", "repeat", "resolve_device",
    "train",
]  # fmt: skip


def train(
    config: TrainConfig,
    out: Path | None = None,
    *,
    resume: bool = False,
    fresh: bool = False,
    draw: bool = False,
    on_progress: Listener = lambda progress: None,
    on_evaluation: OnEvaluation | None = None,
    warn: Warn = lambda message: None,
    group: Group = ALONE,
) -> Run:
    """Train `config.model` into the run directory `out` (`runs/<model>-<dataset>` unless given).

    `resume` goes on from that directory's checkpoint (without `out`: the newest below `runs/`), with the configuration
    it holds; only the data folder and the device are those of `config`, where it says which. A run that is complete is
    returned as it is. `fresh` starts over where a training was not finished, and discards its checkpoint. `draw` draws
    curves, confusion matrix and worst mistakes.

    DataError for the data. UsageError for the configuration and for a folder that holds what is not a run's.
    TrainingError when the loss stops being a number, the memory is not enough, the checkpoint cannot be used, the
    folder holds a training that is not finished or another training is at work in it. Interrupted on Ctrl-C or SIGTERM,
    with a checkpoint of the last step.

    Each process of a `group` calls this with the same arguments and gets the same run, which its leader writes. A group
    that restarts what it lost goes on by itself where the directory holds a checkpoint of the same settings and data.
    """
    if resume and fresh:
        raise UsageError("to resume a training and to start it over exclude each other")
    clock = Clock()
    saved = None
    if resume:
        out = out or checkpoint.newest(ROOT)
        saved = checkpoint.load_checkpoint(out, warn)
        config = resumed_config(saved, out, config)
        if complete := run_folder.completed(out, saved):
            return complete
    if not entry_of(config.model).datasets:
        return _untrained(config, out or ROOT / config.model)
    with clock.phase("load"):
        config, dataset, device = prepare(config, warn, group)
    if saved and saved["dataset"]["sha256"] != dataset.sha256:
        raise TrainingError(f"the dataset {dataset.name} is not the one that {out}/{checkpoint.LAST} was trained on: "
                            "its sha256 differs", f"Bring that one back. {checkpoint.AGAIN}")  # fmt: skip
    folder = out or run_folder_of(config)
    with ExitStack() as stack, deterministic_kernels(config.deterministic):

        def enter() -> bool:
            """Whether this start goes on by itself with the checkpoint in the folder."""
            run_folder.refuse_foreign(folder)
            stack.enter_context(run_folder.alone_in(folder))
            going_on = not saved and _goes_on(folder, config, dataset, group, fresh)
            run_folder.claim(folder)
            return going_on

        if group.from_leader(enter):
            saved = checkpoint.load_checkpoint(folder, warn)
            if complete := run_folder.completed(folder, saved):
                return complete
            warn(f"going on with the training in {folder}, from step {saved['step']}")
        if not group.leads:
            return follow(config, dataset, folder, device, saved, group)
        run = Leader(config, dataset, folder, device, clock, saved, warn, on_evaluation, group).run(on_progress, draw)
    group.wait()
    return run


def find_learning_rate(
    config: TrainConfig, out: Path | None = None, *, warn: Warn = lambda message: None
) -> tuple[RangeTest, Path]:
    """A range test of `config`, and its picture in `out` (`runs/<model>-<dataset>` unless given). Leaves no run."""
    if not entry_of(config.model).datasets:
        raise UsageError(f"{config.model} is not trained: it has no learning rate")
    config, dataset, device = prepare(config, warn, ALONE)
    found = range_test(config, dataset, device)
    return found, pictures.rates((out or run_folder_of(config)) / "learning-rates.png", found)


def repeat(
    path: Path,
    out: Path | None = None,
    *,
    fresh: bool = False,
    draw: bool = False,
    on_progress: Listener = lambda progress: None,
    warn: Warn = lambda message: None,
    group: Group = ALONE,
) -> tuple[Run, bool]:
    """The run of this run.json (or its folder) again, into `out` (`<its folder>-again` unless given); and whether the
    weights are the same to the bit. Where they are others, `warn` gets what may be the reason.

    UsageError where that is no run of this version or `out` is its folder, DataError where the data are others.
    """
    first = open_run(path if path.is_dir() else path.parent)
    folder = out or first.folder.with_name(f"{first.folder.resolve().name}-again")
    if folder.resolve() == first.folder.resolve():
        raise UsageError(f"{folder} is the run that is to be repeated", "Give another --out.")
    try:
        config = parsing.as_dataclass(TrainConfig, first.document["config"], whole=True)
    except UsageError as cause:
        raise UsageError(f"{first.folder}/run.json is another version's: {cause.message}", cause.remedy) from cause
    dataset_of(first)
    config = dataclasses.replace(config, device=first.document["device"])
    second = train(config, folder, fresh=fresh, draw=draw, on_progress=on_progress, warn=warn, group=group)
    same = bool(first.document["weights_sha256"] == second.document["weights_sha256"])
    if not same:
        kept = ("versions", "threads", "device", "git_commit")
        others = [name for name in kept if first.document.get(name) != second.document.get(name)]
        warn(f"the weights are not those of {first.folder}: " + (f"other {', '.join(others)}" if others else
             "nothing that run.json knows is different, the processor or GPU may be"))  # fmt: skip
    return second, same


def _goes_on(folder: Path, config: TrainConfig, dataset: Dataset, group: Group, fresh: bool) -> bool:
    """Whether a start without --resume goes on with the checkpoint in the folder: that of a group does which starts
    again what it lost. TrainingError where it would destroy a training that is not finished."""
    try:
        saved = checkpoint.load_checkpoint(folder, lambda message: None)
    except TrainingError:
        return False
    same = decisive(saved["config"]) == decisive(dataclasses.asdict(config))
    same = same and saved["dataset"]["sha256"] == dataset.sha256
    if group.launch_id and same and (not fresh or saved.get("launch_id") == group.launch_id):
        return True
    if saved["step"] and not fresh and not run_folder.completed(folder, saved):
        raise TrainingError(
            f"{folder} holds a training that is not finished: {saved['step']:,} steps are done",
            f"Go on with `deploypipe train --resume --out {folder}`, start over with --fresh, or give another --out.",
        )
    return False


def _untrained(config: TrainConfig, folder: Path) -> Run:
    """A model without anything to train still gets a run directory, so that every later verb works on it."""
    if config.data != TrainConfig.data or config.epochs != TrainConfig.epochs:
        raise UsageError(f"{config.model} is not trained: there is nothing to do with a dataset or epochs",
                         "Leave out --data and --epochs.")  # fmt: skip
    torch.manual_seed(config.seed)
    run_folder.refuse_foreign(folder)
    run_folder.claim(folder)
    digest = run_folder.write_weights(folder, entry_of(config.model).build())
    facts: dict[str, Any] = {"dataset": None, "epochs": [], "metrics": {}, "device": "cpu", "seconds": 0.0}
    return run_folder.write_run(folder, config, digest, facts)
