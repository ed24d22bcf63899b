"""A measured server as files: the figures as JSON, latency against load as a PNG."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from deploypipe.bench.serving import Measurement, ServingTimes
from deploypipe.files import write_json
from deploypipe.training.pictures import new_figure, save


def write_serving(found: ServingTimes, path: Path) -> tuple[Path, Path]:
    """The figures in `path`, and a picture of them beside it; both paths."""
    write_json(path, found.to_json())
    return path, _latencies(path.with_suffix(".png"), found)


def _latencies(path: Path, found: ServingTimes) -> Path:
    """Open loops by arrival rate, closed loops by connections; how much was answered, and what share was not."""
    opened = [done for done in found.measurements if done.load.rate is not None]
    closed = [done for done in found.measurements if done.load.rate is None]
    panels: list[tuple[str, Sequence[Measurement], Callable[[Measurement], float]]] = [
        ("open loop: arrivals per second", opened, lambda done: done.load.rate or 0),
        ("closed loop: connections", closed, lambda done: done.load.connections or 0),
    ]
    panels = [panel for panel in panels if panel[1]]
    figure = new_figure(5 * len(panels), 4)
    figure.suptitle(f"{found.model} {found.version}: latency of right answers")
    for axes, (title, measured, load_of) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        measured = sorted(measured, key=load_of)
        shown = [(done, asdict(done.latency)) for done in measured if done.latency]
        for name in ("p50", "p95", "p99"):
            axes.plot([load_of(done) for done, _ in shown], [each[name] for _, each in shown], marker="o", label=name)
        for done, each in shown:
            lost = 1 - done.answered / (done.sent + done.unsent)
            note = f"{done.requests_per_second:,.0f}/s" + (f"\n{lost:.1%} lost" if lost else "")
            axes.annotate(note, (load_of(done), each["p50"]), (0, -9), textcoords="offset points",
                          ha="center", va="top", fontsize=7)  # fmt: skip
        axes.set(xlabel=title, ylabel="milliseconds", yscale="log")
        axes.margins(0.12, 0.2)
        if "closed" in title:
            axes.set_xscale("log", base=2)
            axes.set_xticks([load_of(done) for done, _ in shown], [str(load_of(done)) for done, _ in shown])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return save(figure, path)
