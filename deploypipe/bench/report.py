"""A measured server as files: the figures as JSON, latency against load as a PNG."""

from pathlib import Path

from deploypipe.bench.serving import ServingTimes
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
    panels = [(kind, rows) for kind, rows in (("arrivals per second", opened), ("connections", closed)) if rows]
    figure = new_figure(5 * len(panels), 4)
    figure.suptitle(f"{found.model} {found.version}: latency of right answers")
    for axes, (kind, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        rows.sort(key=lambda done: done.load.amount)
        loads = [done.load.amount for done in rows]
        for name in ("p50", "p95", "p99"):
            axes.plot(loads, [getattr(done.latency, name) for done in rows], marker="o", label=name)
        for done in rows:
            lost = 1 - done.answered / (done.sent + done.unsent)
            note = f"{done.requests_per_second:,.0f}/s" + (f"\n{lost:.1%} lost" if lost else "")
            axes.annotate(note, (done.load.amount, done.latency.p50), (0, -9), textcoords="offset points",
                          ha="center", va="top", fontsize=7)  # fmt: skip
        axes.set(xlabel=kind, ylabel="milliseconds", yscale="log")
        if rows is closed:
            axes.set_xscale("log", base=2)
            axes.set_xticks(loads, [f"{load:g}" for load in loads])
        axes.margins(0.12, 0.2)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return save(figure, path)
