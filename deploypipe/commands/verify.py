"""`verify`: artifacts, an archive or a server against the eager model."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from deploypipe.commands import options
from deploypipe.commands.output import Document, next_commands, note, out, table, verdict, warn
from deploypipe.errors import UsageError

if TYPE_CHECKING:
    from deploypipe.parity.verdict import Distance, Report


def verify(
    run: options.RunFolder = None,
    artifact: Annotated[Path | None, typer.Option(help="[default: every artifact of the run]")] = None,
    mar: Annotated[Path | None, typer.Option(help="An archive, by the handler inside it.")] = None,
    url: Annotated[str | None, typer.Option(help="A server, over HTTP, whoever wrote it.")] = None,
    name: Annotated[str | None, typer.Option(help="Its model. [default: the one that `serve` serves there]")] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="Sent to it: 'Authorization: Bearer …'. May be repeated.")
    ] = None,
    model: options.OwnModel = None,
    example: options.OwnExample = None,
    dynamic: options.OwnAxes = None,
    data_dir: options.DataDir = None,
    device: options.RunnerDevice = "cpu",
    probes: options.OwnProbes = None,
    seed: options.Seed = 0,
    budget: options.Seconds = None,
    memory: options.Memory = None,
    atol: Annotated[list[str] | None, typer.Option(help="Absolute tolerance: 1e-5, or logits:1e-5 for one.")] = None,
    rtol: Annotated[list[str] | None, typer.Option(help="Relative tolerance, likewise.")] = None,
) -> Document:
    """Compare artifacts, an archive or a server with the eager model; exit 6 on a difference."""
    from deploypipe.contract.run import run_of
    from deploypipe.contract.server import started_here
    from deploypipe.contract.sidecar import sidecar_of
    from deploypipe.endpoints.asking import parse_header
    from deploypipe.parity.budget import Budget
    from deploypipe.parity.tolerances import parse_overrides
    from deploypipe.usercode import load_example, load_module, load_probes, parse_dynamic
    from deploypipe.verify import Subjects, Terms, verify_module, verify_run

    terms = Terms(parse_overrides(atol or [], rtol or []), seed, Budget(budget, memory))
    if url is None:
        options.refuse("a server's --url", {"--name": name, "--header": header})
    headers = dict(map(parse_header, header or []))
    subjects = Subjects((artifact,) if artifact else (), mar, url, name, headers, device)
    if model is None:
        options.refuse("an own --model", {"--example": example, "--dynamic": dynamic, "--probes": probes})
        opened = run_of(run, artifact)
        if not subjects:
            subjects = dataclasses.replace(subjects, artifacts=tuple(opened.artifacts()))
        verified = verify_run(opened, subjects, data_dir, terms)
        then = ["package", *options.naming(opened)]
    else:
        options.refuse("a run, not with --model", {"--run": run, "--data-dir": data_dir})
        if example is None or not subjects:
            raise UsageError("--model needs --example file.py:name, and --artifact FILE, --mar FILE or --url URL")
        axes = parse_dynamic(dynamic) if dynamic else None
        own, calls = load_module(model), load_probes(probes) if probes else None
        verified = verify_module(own, load_example(example), subjects, axes, terms, calls)
        then = ["package", "--artifact", str(artifact)] if artifact and sidecar_of(artifact).exists() else []
    show_reports(verified.reports)
    note(f"Report: {verified.document}")
    if verified.script:
        note(f"The difference, in a script of its own: {verified.script}")
    for report in verified.reports:
        report.raise_if_failed()
    if mar or url:
        then = ["predict", "--url", url, "FILE"] if url else ["serve", "--detach"]
    if then and (url is None or started_here(url)):
        next_commands(then)
    artifacts = [report.to_json() for report in verified.reports]
    return {"verdict": "passed", "report": str(verified.document), "artifacts": artifacts}


def show_reports(found: "Sequence[Report]") -> None:
    """A table an artifact: a line per output and probe family, with the worst of its comparisons; then the checks."""
    for report in found:
        title = f"{report.artifact} on {report.provider}"
        lines = table("output", "probes", "n", "largest", "mean", "99 %", "ULPs", "cosine", "classes", "", title=title)
        for output, family in dict.fromkeys((outcome.output, outcome.family) for outcome in report.outcomes):
            rows = [row for row in report.outcomes if (row.family, row.output) == (family, output)]
            distances = [row.distance for row in rows]
            lines.add_row(output, family, str(len(rows)), *_worst(distances), verdict(all(row.passed for row in rows)))
        out.print(lines)
        for finding in report.findings:
            out.print(Text.assemble(f"{finding.check}: {finding.detail}  ", verdict(finding.passed)), soft_wrap=True)
        for line in report.remarks:
            warn(line)
        if measured := [o.distance for o in report.outcomes if not math.isnan(o.distance.error)]:
            error, own = max(d.error for d in measured), max(d.eager_error for d in measured)
            out.print(f"largest distance from float64: {error:.1e}, eager's own {own:.1e}")


def _worst(distances: "Sequence[Distance]") -> list[str]:
    def worst(pick: Callable[[list[float]], float], name: str, form: str) -> str:
        values = [getattr(distance, name) for distance in distances]
        known = [value for value in values if not math.isnan(value)]
        return format(pick(known), form) if known else "–"

    return [
        worst(max, "largest", ".1e"), worst(max, "mean", ".1e"), worst(max, "p99", ".1e"), worst(max, "ulps", ".3g"),
        worst(min, "cosine", ".6f"), worst(min, "agreement", ".2%"),
    ]  # fmt: skip
