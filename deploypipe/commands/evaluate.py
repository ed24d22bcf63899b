"""`evaluate`: how good a run's model is on its test set, eager or as an artifact."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploypipe.commands import options
from deploypipe.commands.output import Document, next_commands, out, table
from deploypipe.errors import DataError

if TYPE_CHECKING:
    from deploypipe.evaluate import Metrics


def evaluate(
    run: options.RunFolder = None,
    artifact: Annotated[Path | None, typer.Option(help="An artifact instead of the eager model.")] = None,
    data_dir: options.DataDir = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> Document:
    """Accuracy, per-class precision and recall and the confusion matrix on the test set."""
    from deploypipe.contract.run import run_of
    from deploypipe.data import dataset_of
    from deploypipe.evaluate import evaluate as measure
    from deploypipe.formats.reading import read_runner
    from deploypipe.models.trained import load_trained
    from deploypipe.train import resolve_device

    opened = run_of(run, artifact)
    dataset = dataset_of(opened, data_dir)
    if dataset is None:
        raise DataError(f"{opened.model} has no test set: it is not trained", "Try `deploypipe verify`.")
    if artifact is not None:
        title, found = str(artifact), measure(read_runner(artifact, device), dataset.test)
    else:
        where = resolve_device(device)
        title, found = str(opened.folder), measure(load_trained(opened).to(where), dataset.test, where)
    _show(f"{title} on {dataset.name}", found, dataset.classes)
    next_commands(["export", "--format", "all", *options.naming(opened)])
    return {"of": title, "dataset": dataset.name, "dataset_sha256": dataset.sha256, **found.to_json()}


def _show(title: str, found: "Metrics", classes: Sequence[str]) -> None:
    if found.accuracy is None:
        out.print(f"{title}: mean squared error {found.mean_squared_error:.3e} on {found.examples:,} examples")
        return
    out.print(f"{title}: accuracy {found.accuracy:.2%} on {found.examples:,} examples")
    rows = table("class", "precision", "recall", *classes, title="columns: predicted class")
    for i, name in enumerate(classes):
        rows.add_row(name, f"{found.precision[i]:.2%}", f"{found.recall[i]:.2%}", *map(str, found.confusion[i]))
    out.print(rows)
