"""`run`: the whole way in one go."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploypipe.commands import options, training_options
from deploypipe.commands.output import (
    Document,
    difference,
    file_size,
    next_commands,
    note,
    out,
    table,
    verdict,
    warn,
)
from deploypipe.commands.train import training_progress

if TYPE_CHECKING:
    from deploypipe.run import Summary


@training_options.takes_settings("model", "data", "data_dir", "device", "epochs")
def run(
    *,
    folder: options.RunOut = None,
    fresh: options.Fresh = False,
    format: Annotated[str, typer.Option(help="The format that is served; all of them are written.")] = "onnx",
    model_store: options.ModelStore = options.STORE,
    **settings: Any,
) -> Document:
    """Train, evaluate, export to every format, verify, package, serve and predict, in one go."""
    from deploypipe.run import run as run_all
    from deploypipe.train import configure

    config = configure(options=settings)
    with training_progress() as listener:
        summary = run_all(
            config, folder, fresh=fresh, format=format, store=model_store, on_progress=listener, say=note, warn=warn
        )
    _show(summary)
    sample = next(iter(sorted(summary.run.samples.glob("*.png"))), "digit.png")
    next_commands(
        ["evaluate", *options.naming(summary.run)],
        ["serve", "--detach", *options.naming_store(model_store)],
        ["predict", "--name", summary.archive.name, str(sample)],
        ["stop"],
    )
    return summary.to_json()


def _show(found: "Summary") -> None:
    document = found.run.document
    dataset = document["dataset"]
    rows = table("what", "result", "verdict", title=f"{found.run.model} on {dataset['name']}")
    rows.add_row("dataset", f"{dataset['name']}, sha256 {dataset['sha256'][:12]}…", "")
    rows.add_row("training", f"{document['seconds']:.1f} s, {len(document['epochs'])} epochs, {document['device']}", "")
    rows.add_row("test accuracy", f"{document['metrics']['accuracy']:.2%} of {dataset['test']:,}", "")
    for artifact, report in found.artifacts:
        result = f"{file_size(artifact.path)}, largest difference {difference(report.max_difference)}"
        rows.add_row(f"{artifact.format} artifact", result, verdict(report.passed))
    rows.add_row("archive", f"{found.archive.path}, {file_size(found.archive.path)}", "")
    http = found.http
    result = f"{http.agreeing} of {http.requests} answers equal eager's, largest difference {http.max_difference:.2e}"
    rows.add_row("HTTP", result, verdict(http.passed))
    out.print(rows)
