"""`export` and `quantize`: artifacts that are proven before they are put in place."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from deploypipe.commands import options
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
from deploypipe.commands.verify import show_reports
from deploypipe.errors import UsageError

if TYPE_CHECKING:
    from deploypipe.export import Plan, Written


def export(
    format: Annotated[str, typer.Option(help="One of `deploypipe formats`, or all.")] = "onnx",
    run: options.RunFolder = None,
    model: options.OwnModel = None,
    example: options.OwnExample = None,
    dynamic: options.OwnAxes = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for your own module's artifacts. [default: here]")
    ] = None,
    random: options.Random = None,
    state: options.State = None,
    bound: options.Bound = None,
    data_dir: options.DataDir = None,
    probes: options.OwnProbes = None,
    seed: options.Seed = 0,
    budget: options.Seconds = None,
    memory: options.Memory = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what became of each place where Python decides by data.")
    ] = False,
    require_coverage: Annotated[
        bool, typer.Option("--require-coverage", help="Exit 6 unless every branch outcome was proven.")
    ] = False,
) -> Document:
    """Write a run's model, or your own, as artifacts that are proven equal to eager."""
    from deploypipe.capture import capture
    from deploypipe.contract.run import open_run
    from deploypipe.export import plan, plan_run, write_each
    from deploypipe.formats import FORMATS, format_named
    from deploypipe.parity.budget import Budget
    from deploypipe.usercode import load_example, load_module, load_probes, parse_dynamic

    allowed = Budget(budget, memory)
    suffixes = {name: format_named(name).suffix for name in (FORMATS if format == "all" else [format])}
    if model is None:
        options.refuse("an own --model", {"--example": example, "--dynamic": dynamic, "--out": folder,
                                                "--probes": probes, "--random": random, "--state": state,
                                                "--bound": bound})  # fmt: skip
        opened = open_run(run)
        prepared = plan_run(opened, data_dir, seed=seed, budget=allowed)
        paths = {name: opened.exports / f"model{suffix}" for name, suffix in suffixes.items()}
        at = options.naming(opened)
        then = [["verify", *at], ["package", *at]]
    else:
        options.refuse("a run, not with --model", {"--run": run, "--data-dir": data_dir})
        if example is None:
            raise UsageError("--model needs --example file.py:name, the inputs to capture it with")
        axes = parse_dynamic(dynamic or [])
        captured = capture(load_module(model), load_example(example), axes, random=random, state=state, bound=bound)
        prepared = plan(captured, load_probes(probes) if probes else None, seed=seed, budget=allowed)
        paths = {name: (folder or Path()) / f"{model.rpartition(':')[2]}{suffix}" for name, suffix in suffixes.items()}
        first = str(next(iter(paths.values())))
        then = [["verify", "--model", model, "--example", example, "--artifact", first]]
    if explain:
        _show_control_flow(prepared)
    if require_coverage:
        prepared.require_coverage()
    for line in prepared.remarks:
        warn(line)
    rows = write_each(prepared, paths)
    _show(rows)
    for line in (remark for row in rows if row.report for remark in row.report.remarks):
        warn(line)
    note(f"Folder: {next(iter(paths.values())).parent}")
    artifacts = [row.proven()[0] for row in rows]
    next_commands(*then)
    return {"artifacts": [{"path": str(artifact.path), **artifact.to_json()} for artifact in artifacts],
            **({"rewritten": dict(prepared.captured.static.rewritten)} if explain else {})}  # fmt: skip


def quantize(run: options.RunFolder = None, data_dir: options.DataDir = None) -> Document:
    """Round a run's ONNX artifact to int8, which many processors run faster; exit 6 if it loses over 0.1 points."""
    from deploypipe.contract.run import open_run
    from deploypipe.quantize import quantize as quantize_run

    artifact, report = quantize_run(open_run(run), data_dir)
    show_reports([report])
    report.raise_if_failed()
    note(f"Artifact: {artifact.path} ({file_size(artifact.path)})")
    next_commands(["package", "--artifact", str(artifact.path)])
    return {"path": str(artifact.path), **artifact.to_json()}


def _show(written: "Sequence[Written]") -> None:
    rows = table("format", "file", "size", "comparisons", "largest difference", "verdict")
    for row in written:
        if row.report is None:
            rows.add_row(row.format, "not written", "", "", "", Text("refused", style="red"))
            continue
        passed = row.report.passed
        rows.add_row(
            row.format,
            row.path.name if passed else "not written",
            file_size(row.path) if passed else "",
            str(len(row.report.outcomes)),
            difference(row.report.max_difference),
            verdict(passed),
        )
    out.print(rows)


def _show_control_flow(prepared: "Plan") -> None:
    """Each place where Python decides by data, and the source that was captured instead, as a diff."""
    from rich.syntax import Syntax

    rows = table("where", "in", "kind", "became", "proven", "not proven")
    for site in prepared.control_flow:
        rows.add_row(
            site.where, site.function, site.kind, site.became or "as it is", ", ".join(site.proven),
            ", ".join(site.unproven),
        )  # fmt: skip
    out.print(rows if prepared.control_flow else "Nothing in this model decides by data.")
    for rewritten in prepared.captured.static.rewritten.values():
        out.print(Syntax(rewritten, "diff", background_color="default", word_wrap=True))
