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
    from deploypipe.train import Progress, RangeTest


@training_options.takes_settings()
def train(
    *,
    recipe: training_options.Recipe = None,
    config: training_options.Config = None,
    set: training_options.Set = None,
    folder: options.RunOut = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, with its settings.")] = False,
    fresh: options.Fresh = False,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Repeat the run of this run.json. [--out: <its folder>-again]")
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Try learning rates and suggest one; nothing is trained.")
    ] = False,
    pictures: Annotated[bool, typer.Option(help="Curves, confusion matrix and worst mistakes.")] = True,
    **settings: Any,
) -> Document:
    """Train a network into a run directory."""
    from deploypipe import train as training
    from deploypipe.training import distributed

    _refuse_together({"--resume": resume, "--from": bool(from_), "--find-lr": find_lr})
    _refuse_together({"--resume": resume, "--fresh": fresh, "--find-lr": find_lr})
    sources = {"--recipe": recipe, "--config": config, "--set": set}
    for other, on, taken in (("--resume", resume, ("data_dir", "device")), ("--from", from_, ())):
        if on:
            named = {training_options.option_of(key): value for key, value in settings.items() if key not in taken}
            options.refuse(f"a new training, not with {other}", sources | named)
    merged = training.configure(recipe, config, set or [], settings)
    if find_lr:
        found, picture = training.find_learning_rate(merged, folder, warn=warn)
        _show_rates(found, picture)
        next_commands(["train", "--learning-rate", f"{found.suggestion:g}"])
        return {"picture": str(picture), **found.to_json()}
    repeated = {}
    with distributed.joined() as group, training_progress() as listener:
        if from_:
            done, same = training.repeat(
                from_, folder, fresh=fresh, draw=pictures, on_progress=listener, warn=warn, group=group
            )
            repeated = {"repeats": str(from_), "same_weights": same}
        else:
            done = training.train(
                merged, folder, resume=resume, fresh=fresh, draw=pictures, on_progress=listener, warn=warn, group=group
            )
    show_run(done)
    if repeated.get("same_weights"):
        note(f"The weights are those of {from_}, bit for bit.")
    at = options.naming(done)
    trained = [["evaluate", *at]] if done.document["dataset"] else []
    next_commands(*trained, ["export", "--format", "onnx", *at])
    return {"run": str(done.folder), **done.document, **repeated}


def _refuse_together(chosen: Mapping[str, bool]) -> None:
    if sum(chosen.values()) > 1:
        *first, last = chosen
        raise UsageError(f"{', '.join(first)} and {last} exclude each other")


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


def _show_rates(found: "RangeTest", picture: Path) -> None:
    """A row for every tenth rate, and the suggestion."""
    rows = table("learning rate", "loss")
    for rate, loss in list(zip(found.rates, found.losses, strict=True))[::10]:
        rows.add_row(f"{rate:.1e}", f"{loss:.4f}")
    out.print(rows)
    out.print(f"The loss falls fastest at a learning rate of {found.suggestion:g}.")
    note(f"Picture: {picture}")
