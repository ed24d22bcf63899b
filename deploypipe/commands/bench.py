"""`bench train` and `bench serve`: how fast a training and a server are."""

import dataclasses
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploypipe.commands import options, training_options
from deploypipe.commands.output import Document, listing, note, out, size, table, warn

if TYPE_CHECKING:
    from deploypipe.bench import Measurement, SeedTime, ServingTimes, TrainingTimes, Usage


@training_options.takes_settings("model", "data", "data_dir", "device")
def train(
    *,
    recipe: training_options.Recipe = None,
    config: training_options.Config = None,
    set: training_options.Set = None,
    seeds: Annotated[int, typer.Option(help="How many trainings, each with its own.")] = 5,
    target: Annotated[float, typer.Option(help="Test accuracy whose time is taken.")] = 0.99,
    **settings: Any,
) -> Document:
    """Time to 99 % over several seeds, images a second, peak memory, and where the time goes."""
    from deploypipe.bench import time_training
    from deploypipe.train import configure

    merged = configure(recipe, config, set or [], settings)
    found = time_training(merged, seeds=seeds, target=target, on_seed=_note_seed, warn=warn)
    _show_training(found)
    return found.to_json()


def serve(
    url: options.Url = options.SERVER,
    name: options.ServedName = None,
    connections: Annotated[
        str | None, typer.Option(help="Closed loops: each asks again when answered. [default: 1,8,64]")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Open loops: arrivals a second. [default: 20 to 80 % of the best closed one]")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each load, after a second of warm-up.")] = 5.0,
    images_per_request: Annotated[int, typer.Option(help="1: a PNG a request; more: a NumPy array.")] = 1,
    mar: Annotated[Path | None, typer.Option(help="What is served, where `serve` did not start the server.")] = None,
    document: Annotated[Path, typer.Option("--out", help="The figures; a picture goes beside it.")] = Path("runs")
    / "bench-serve.json",
) -> Document:
    """Latencies, throughput and errors of a server under load, and what it takes for it."""
    from deploypipe.bench import parse_loads, time_serving, write_serving
    from deploypipe.contract.archive import read_archive

    loads, archive = parse_loads(connections, rate), read_archive(mar) if mar else None
    found = time_serving(
        url, name, loads, images_per_request=images_per_request, seconds=seconds, archive=archive, report=_note_load
    )
    figures, picture = write_serving(found, document)
    _show_serving(found)
    note(f"Figures: {figures}, picture: {picture}")
    return {**found.to_json(), "picture": str(picture)}


def _note_seed(found: "SeedTime") -> None:
    note(f"seed {found.seed}: accuracy {found.accuracy:.2%}, {found.seconds:.2f} s of training")


def _note_load(found: "Measurement") -> None:
    note(f"{found.load}: {found.requests_per_second:,.0f} right answers/s")


def _show_training(found: "TrainingTimes") -> None:
    spread, shares = found.spread, sorted(found.phases.items(), key=lambda item: -item[1])
    accuracies = [done.accuracy for done in found.seeds]
    rows = [
        (f"seconds to {found.target:.1%}",
         "not reached" if spread is None else "{median:.2f} ({min:.2f} to {max:.2f})".format(**spread)),
        ("seeds that reached it", f"{len(found.to_target)} of {len(found.seeds)}"),
        ("test accuracy", f"{sum(accuracies) / len(accuracies):.2%} ({min(accuracies):.2%} to {max(accuracies):.2%})"),
        ("seconds of training", f"{statistics.median(done.seconds for done in found.seeds):.2f}"),
        ("images per second", f"{found.images_per_second:,.0f}"),
        ("peak memory", size(found.peak_memory)),
        ("share of the time", ", ".join(f"{name} {share:.0%}" for name, share in shares)),
    ]  # fmt: skip
    listing((f"{found.model} on {found.data}", f"{found.device}, {found.threads} threads"), rows)


def _show_serving(found: "ServingTimes") -> None:
    rate = "images/s" if found.measurements[0].images_per_request > 1 else "right/s"
    title = f"{found.model} {found.version} at {found.url}; milliseconds; cores: front end + workers"
    rows = table("load", rate, "p50", "p95", "p99", "max", "errors", "unsent", "cores", "memory", title=title)
    for done in found.measurements:
        latency = [f"{value:.1f}" for value in dataclasses.astuple(done.latency)]
        errors = ", ".join(f"{kind}: {count:,}" for kind, count in done.errors.items()) or "0"
        rows.add_row(
            str(done.load), f"{done.images_per_second:,.0f}", *latency, errors, f"{done.unsent:,}", *_usage(done.server)
        )
    out.print(rows)


def _usage(found: "Usage | None") -> tuple[str, str]:
    """Of a server that runs elsewhere nothing is known."""
    if found is None:
        return "–", "–"
    return f"{found.front_end_cores:.2f} + {found.worker_cores:.2f}", size(found.memory)
