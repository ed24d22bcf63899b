"""What the command line shows. Results go to standard output, progress and everything else to standard error."""

import dataclasses
import json
import math
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from deploypipe.bench import Measurement, SeedTime, ServingTimes, TrainingTimes, Usage
from deploypipe.contract.run import Run
from deploypipe.evaluate import Metrics
from deploypipe.export import Plan, Written
from deploypipe.parity import Distance, Report
from deploypipe.pipeline import Summary
from deploypipe.serve.deployment import Deployment
from deploypipe.serve.readiness import Status
from deploypipe.serve.record import Server
from deploypipe.train import Finding, Progress
from deploypipe.train import Report as Listener

# Where nobody looks at a terminal there is no width to fit into, and a wrapped path is hard to copy.
# Paths, names and a server's words are shown as they are: "[/y]" is no markup, ":cat:" no cat.
out = Console(width=None if sys.stdout.isatty() else 110, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def _table(*columns: str, title: str | None = None) -> Table:
    """Cells that do not fit are continued below, never cut: a cut path or message is of no use."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@contextmanager
def results_alone(*, results: bool = True, progress: bool = True) -> Iterator[None]:
    """Standard output is for results: what anything else prints, a user's own module too, goes to standard error.
    Inside, `results` and `progress` say which of the two are shown."""
    out.file, out.quiet, err.quiet = sys.stdout, not results, not progress
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        # `None` is whatever standard output is then.
        out.file, out.quiet, err.quiet = None, False, False  # type: ignore[assignment]


def warn(message: str) -> None:
    err.print(f"warning: {message}", style="yellow")


def note(message: str) -> None:
    err.print(message)


def next_commands(*commands: Sequence[str]) -> None:
    note("Next: " + "\n      ".join(shlex.join(["deploypipe", *command]) for command in commands))


@contextmanager
def training_progress() -> Iterator[Listener]:
    """A bar on a terminal; elsewhere a line per epoch, so that a log file stays readable."""
    if not err.is_terminal:
        yield _log_line
        return
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=err, transient=True) as bar:
        task = bar.add_task("train", epoch="…", figures="")

        def listen(progress: Progress) -> None:
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


def _log_line(progress: Progress) -> None:
    if progress.step == progress.steps:
        note(f"epoch {progress.epoch}/{progress.epochs}  {_figures(progress)}")


def _figures(progress: Progress) -> str:
    accuracy = "" if progress.accuracy is None else f"  accuracy {progress.accuracy:.2%}"
    return f"loss {progress.loss:.4f}{accuracy}  {progress.images_per_second:,.0f}/s"


def run_summary(run: Run) -> None:
    document = run.document
    dataset = document["dataset"]
    table = _table("run", "model", "dataset", "sha256", "epochs", "seconds", "test result")
    table.add_row(
        str(run.folder),
        run.model,
        dataset["name"] if dataset else "none",
        dataset["sha256"][:12] if dataset else "",
        str(len(document["epochs"])),
        f"{document['seconds']:.1f}",
        result_of(document["metrics"]),
    )
    out.print(table)
    recall = document["metrics"].get("recall")
    if recall:
        classes = _table("class", "recall on the test set")
        for name, share in zip(dataset["classes"], recall, strict=True):
            classes.add_row(name, f"{share:.2%}")
        out.print(classes)


def learning_rates(found: Finding, picture: Path) -> None:
    """A row for every tenth rate, and the suggestion."""
    table = _table("learning rate", "loss")
    for rate, loss in list(zip(found.rates, found.losses, strict=True))[::10]:
        table.add_row(f"{rate:.1e}", f"{loss:.4f}")
    out.print(table)
    out.print(f"The loss falls fastest at a learning rate of {found.suggestion:g}.")
    note(f"Picture: {picture}")


def seed_done(found: SeedTime) -> None:
    note(f"seed {found.seed}: accuracy {found.accuracy:.2%}, {found.seconds:.2f} s of training")


def training_times(found: TrainingTimes) -> None:
    spread, shares = found.spread, sorted(found.phases.items(), key=lambda item: -item[1])
    accuracies = [done.accuracy for done in found.seeds]
    rows = [
        (f"seconds to {found.target:.1%}",
         "not reached" if spread is None else "{median:.2f} ({min:.2f} to {max:.2f})".format(**spread)),
        ("seeds that reached it", f"{len(found.to_target)} of {len(found.seeds)}"),
        ("test accuracy", f"{sum(accuracies) / len(accuracies):.2%} ({min(accuracies):.2%} to {max(accuracies):.2%})"),
        ("seconds of training", f"{statistics.median(done.seconds for done in found.seeds):.2f}"),
        ("images per second", f"{found.images_per_second:,.0f}"),
        ("peak memory", size_of(found.peak_memory)),
        ("share of the time", ", ".join(f"{name} {share:.0%}" for name, share in shares)),
    ]  # fmt: skip
    listing((f"{found.model} on {found.data}", f"{found.device}, {found.threads} threads"), rows)


def load_done(found: Measurement) -> None:
    note(f"{found.load}: {found.requests_per_second:,.0f} right answers/s")


def serving_times(found: ServingTimes) -> None:
    rate = "images/s" if found.measurements[0].images_per_request > 1 else "right/s"
    title = f"{found.model} {found.version} at {found.url}; milliseconds; cores: front end + workers"
    table = _table("load", rate, "p50", "p95", "p99", "max", "errors", "unsent", "cores", "memory", title=title)
    for done in found.measurements:
        latency = [f"{value:.1f}" for value in dataclasses.astuple(done.latency)]
        errors = ", ".join(f"{kind}: {count:,}" for kind, count in done.errors.items()) or "0"
        table.add_row(
            str(done.load), f"{done.images_per_second:,.0f}", *latency, errors, f"{done.unsent:,}", *_usage(done.server)
        )
    out.print(table)


def _usage(found: Usage | None) -> tuple[str, str]:
    """Of a server that runs elsewhere nothing is known."""
    if found is None:
        return "–", "–"
    return f"{found.front_end_cores:.2f} + {found.worker_cores:.2f}", size_of(found.memory)


def result_of(metrics: Mapping[str, Any]) -> str:
    if "accuracy" in metrics:
        return f"accuracy {metrics['accuracy']:.2%}"
    return f"mean squared error {metrics['mean_squared_error']:.2e}" if metrics else "nothing to train"


def metrics(title: str, found: Metrics, classes: Sequence[str]) -> None:
    if found.accuracy is None:
        out.print(f"{title}: mean squared error {found.mean_squared_error:.3e} on {found.examples:,} examples")
        return
    out.print(f"{title}: accuracy {found.accuracy:.2%} on {found.examples:,} examples")
    table = _table("class", "precision", "recall", *classes, title="columns: predicted class")
    for i, name in enumerate(classes):
        table.add_row(name, f"{found.precision[i]:.2%}", f"{found.recall[i]:.2%}", *map(str, found.confusion[i]))
    out.print(table)


def artifacts(rows: Sequence[Written]) -> None:
    table = _table("format", "file", "size", "comparisons", "largest difference", "verdict")
    for row in rows:
        if row.report is None:
            table.add_row(row.format, "not written", "", "", "", Text("refused", style="red"))
            continue
        passed = row.report.passed
        table.add_row(
            row.format,
            row.path.name if passed else "not written",
            size(row.path) if passed else "",
            str(len(row.report.outcomes)),
            _difference(row.report.max_difference),
            verdict(passed),
        )
    out.print(table)


def control_flow(prepared: Plan) -> None:
    """Each place where Python decides by data, and the source that was captured instead, as a diff."""
    table = _table("where", "in", "kind", "became", "proven", "not proven")
    for site in prepared.control_flow:
        table.add_row(
            site.where, site.function, site.kind, site.became or "as it is", ", ".join(site.proven),
            ", ".join(site.unproven),
        )  # fmt: skip
    out.print(table if prepared.control_flow else "Nothing in this model decides by data.")
    for difference in prepared.captured.static.rewritten.values():
        out.print(Syntax(difference, "diff", background_color="default", word_wrap=True))


def reports(found: Sequence[Report]) -> None:
    """A table an artifact: a line per output and probe family, with the worst of its comparisons; then the checks."""
    for report in found:
        title = f"{report.artifact} on {report.provider}"
        table = _table("output", "probes", "n", "largest", "mean", "99 %", "ULPs", "cosine", "classes", "", title=title)
        for output, family in dict.fromkeys((outcome.output, outcome.family) for outcome in report.outcomes):
            rows = [row for row in report.outcomes if (row.family, row.output) == (family, output)]
            distances = [row.distance for row in rows]
            table.add_row(output, family, str(len(rows)), *_worst(distances), verdict(all(row.passed for row in rows)))
        out.print(table)
        for finding in report.findings:
            out.print(Text.assemble(f"{finding.check}: {finding.detail}  ", verdict(finding.passed)), soft_wrap=True)
        if ruled := [o.distance for o in report.outcomes if not math.isnan(o.distance.error)]:
            error, own = max(d.error for d in ruled), max(d.eager_error for d in ruled)
            out.print(f"largest distance from float64: {error:.1e}, eager's own {own:.1e}")


def _worst(distances: Sequence[Distance]) -> list[str]:
    def worst(pick: Callable[[list[float]], float], name: str, form: str) -> str:
        values = [getattr(distance, name) for distance in distances]
        known = [value for value in values if not math.isnan(value)]
        return format(pick(known), form) if known else "–"

    return [
        worst(max, "largest", ".1e"), worst(max, "mean", ".1e"), worst(max, "p99", ".1e"), worst(max, "ulps", ".3g"),
        worst(min, "cosine", ".6f"), worst(min, "agreement", ".2%"),
    ]  # fmt: skip


def verdict(passed: bool) -> Text:
    return Text("passed", "green") if passed else Text("failed", "red")


def _difference(value: float) -> str:
    return "not comparable" if math.isnan(value) else f"{value:.2e}"


def size(path: Path) -> str:
    return size_of(path.stat().st_size)


def size_of(count: float) -> str:
    """Of so many bytes."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def listing(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = _table(*columns)
    for row in rows:
        table.add_row(*row)
    out.print(table)


def summary(found: Summary) -> None:
    document = found.run.document
    dataset = document["dataset"]
    table = _table("what", "result", "verdict", title=f"{found.run.model} on {dataset['name']}")
    table.add_row("dataset", f"{dataset['name']}, sha256 {dataset['sha256'][:12]}…", "")
    table.add_row(
        "training", f"{document['seconds']:.1f} s, {len(document['epochs'])} epochs, {document['device']}", ""
    )
    table.add_row("test accuracy", f"{document['metrics']['accuracy']:.2%} of {dataset['test']:,}", "")
    for artifact, report in found.artifacts:
        result = f"{size(artifact.path)}, largest difference {_difference(report.max_difference)}"
        table.add_row(f"{artifact.format} artifact", result, verdict(report.passed))
    table.add_row("archive", f"{found.archive.path}, {size(found.archive.path)}", "")
    http = found.http
    result = f"{http.agreeing} of {http.requests} answers equal eager's, largest difference {http.max_difference:.2e}"
    table.add_row("HTTP", result, verdict(http.passed))
    out.print(table)


def server(found: Server) -> None:
    listing(
        ("model", "version", "artifact", "predictions"),
        [
            (archive.name, archive.version, archive.kind, f"{found.url}/predictions/{archive.name}/{archive.version}")
            for archive in found.archives
        ],
    )
    note(f"Metrics for Prometheus: {found.metrics_url}")
    if found.tokens:
        note(f"Requests need the header Authorization: Bearer <key>; the keys are in {found.folder}/key_file.json")


def predictions(found: Sequence[Mapping[str, Any]]) -> None:
    classified = [answer for answer in found if "class" in answer]
    if classified:
        rows = [(answer["file"], str(answer["class"]), f"{answer['probability']:.4f}") for answer in classified]
        listing(("file", "class", "probability"), rows)
    for answer in found:
        if "error" in answer:
            err.print(f"error: {answer['error']}", style="red", markup=False)
        if "class" in answer or "error" in answer:
            continue
        for item in answer.get("predictions", [answer]):
            out.print(f"{answer['file']}: {json.dumps(item)}")


def status(found: Status) -> None:
    if found.models:
        several = Counter(model.name for model in found.models)
        rows = [(model.name, _version(model.version, model.default and several[model.name] > 1),
                 f"{model.workers} of {model.workers_wanted}", model.problem or "correct")
                for model in found.models]  # fmt: skip
        listing(("model", "version", "workers", "answers"), rows)
    if found.ready:
        note(found.message)


def deployment(done: Deployment) -> None:
    name, version, previous = done.archive.name, done.archive.version, done.previous
    served = [archive.version for archive in done.server.archives if archive.name == name]
    listing(
        ("model", "version", "predictions"),
        [(name, _version(each, each == version), f"{done.server.url}/predictions/{name}/{each}") for each in served],
    )
    if done.state == "unchanged":
        note(f"{name} {version} was the default already.")
    elif previous is None:
        note(f"{name} {version} is served.")
    else:
        note(f"{name} {version} is the default; {previous} {'is unloaded' if done.removed else 'is still served'}.")


def _version(version: str, default: bool) -> str:
    return f"{version} (default)" if default else version
