"""`train`: its options, its progress and its tables."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploypipe.commands import options, training_options
from deploypipe.commands.output import Document, err, next_commands, note, out, table, warn
from deploypipe.errors import UsageError

if TYPE_CHECKING:
    from deploypipe.contract.run import Run
    from deploypipe.train import Finding, Progress


def train(
    model: training_options.Model = None,
    data: training_options.Data = None,
    data_dir: options.DataDir = None,
    recipe: training_options.Recipe = None,
    config: training_options.Config = None,
    set: training_options.Set = None,
    epochs: training_options.Epochs = None,
    batch_size: training_options.BatchSize = None,
    optimizer: training_options.Optimizer = None,
    learning_rate: training_options.LearningRate = None,
    momentum: training_options.Momentum = None,
    schedule: training_options.Schedule = None,
    l1: training_options.L1 = None,
    l2: training_options.L2 = None,
    dropout: training_options.Dropout = None,
    shift: training_options.Shift = None,
    rotate: training_options.Rotate = None,
    scale: training_options.Scale = None,
    validation: training_options.Validation = None,
    patience: training_options.Patience = None,
    checkpoint_every_steps: training_options.CheckpointSteps = None,
    checkpoint_every_seconds: training_options.CheckpointSeconds = None,
    seed: training_options.Seed = None,
    device: training_options.Device = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="The same bits on a GPU too, at the cost of time.")
    ] = None,
    folder: options.RunOut = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, with its settings.")] = False,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Repeat the run of this run.json. [--out: <its folder>-again]")
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Try learning rates and suggest one; nothing is trained.")
    ] = False,
    pictures: Annotated[bool, typer.Option(help="Curves, confusion matrix and worst mistakes.")] = True,
) -> Document:
    """Train a network into a run directory."""
    given = locals()
    from deploypipe import train as training
    from deploypipe.training import distributed

    given = {name: given[name] for name in given if name not in ("folder", "resume", "from_", "find_lr", "pictures")}
    for other, on in (("--resume", resume), ("--from", from_)):
        if on:
            named = {f"--{name.replace('_', '-')}": given[name] for name in given}
            options.refuse(f"a new training, not with {other}", named)
    if bool(resume) + bool(from_) + bool(find_lr) > 1:
        raise UsageError("--resume, --from and --find-lr exclude each other")
    settings = {training_options.KEYS.get(name, name): value for name, value in given.items()
                if name not in ("recipe", "config", "set", "data_dir")}  # fmt: skip
    settings["data_dir"] = data_dir and str(data_dir)
    merged = training.configure(recipe, config, set or [], settings)
    if find_lr:
        found, picture = training.find_learning_rate(merged, folder, warn=warn)
        _show_rates(found, picture)
        next_commands(["train", "--learning-rate", f"{found.suggestion:g}"])
        return {"picture": str(picture), **found.to_json()}
    repeated = {}
    with distributed.joined() as group, training_progress() as report:
        if from_:
            done, same = training.repeat(from_, folder, pictures=pictures, report=report, warn=warn, group=group)
            repeated = {"repeats": str(from_), "same_weights": same}
        else:
            done = training.train(
                merged, folder, resume=resume, pictures=pictures, report=report, warn=warn, group=group
            )
    show_run(done)
    if repeated.get("same_weights"):
        note(f"The weights are those of {from_}, bit for bit.")
    at = options.naming(done)
    trained = [["evaluate", *at]] if done.document["dataset"] else []
    next_commands(*trained, ["export", "--format", "onnx", *at])
    return {"run": str(done.folder), **done.document, **repeated}


@contextmanager
def training_progress() -> Iterator[Callable[["Progress"], None]]:
    """A bar on a terminal; elsewhere a line per epoch, so that a log file stays readable."""
    if not err.is_terminal:
        yield _log_line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=err, transient=True) as bar:
        task = bar.add_task("train", epoch="…", figures="")

        def listen(progress: "Progress") -> None:
            bar.update(
                task,
                total=progress.epochs * progress.steps,
                completed=(progress.epoch - 1) * progress.steps + progress.step,
                epoch=f"{progress.epoch}/{progress.epochs}",
                figures=_figures(progress),
            )
            if (progress.epoch, progress.step) == (progress.epochs, progress.steps):
                bar.stop()

        yield listen


def _log_line(progress: "Progress") -> None:
    if progress.step == progress.steps:
        note(f"epoch {progress.epoch}/{progress.epochs}  {_figures(progress)}")


def _figures(progress: "Progress") -> str:
    accuracy = "" if progress.accuracy is None else f"  accuracy {progress.accuracy:.2%}"
    return f"loss {progress.loss:.4f}{accuracy}  {progress.images_per_second:,.0f}/s"


def show_run(run: "Run") -> None:
    document = run.document
    dataset = document["dataset"]
    rows = table("run", "model", "dataset", "sha256", "epochs", "seconds", "test result")
    rows.add_row(
        str(run.folder),
        run.model,
        dataset["name"] if dataset else "none",
        dataset["sha256"][:12] if dataset else "",
        str(len(document["epochs"])),
        f"{document['seconds']:.1f}",
        _result(document["metrics"]),
    )
    out.print(rows)
    recall = document["metrics"].get("recall")
    if recall:
        classes = table("class", "recall on the test set")
        for name, share in zip(dataset["classes"], recall, strict=True):
            classes.add_row(name, f"{share:.2%}")
        out.print(classes)


def _result(metrics: Mapping[str, Any]) -> str:
    if "accuracy" in metrics:
        return f"accuracy {metrics['accuracy']:.2%}"
    return f"mean squared error {metrics['mean_squared_error']:.2e}" if metrics else "nothing to train"


def _show_rates(found: "Finding", picture: Path) -> None:
    """A row for every tenth rate, and the suggestion."""
    rows = table("learning rate", "loss")
    for rate, loss in list(zip(found.rates, found.losses, strict=True))[::10]:
        rows.add_row(f"{rate:.1e}", f"{loss:.4f}")
    out.print(rows)
    out.print(f"The loss falls fastest at a learning rate of {found.suggestion:g}.")
    note(f"Picture: {picture}")
