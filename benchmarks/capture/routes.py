"""Which route carries which dynamic model, measured: tracing, scripting, export, and deploypipe, against eager.

    python benchmarks/capture/routes.py                # the twelve forms, as a Markdown table
    python benchmarks/capture/routes.py --all          # the whole corpus, one row a family
    python benchmarks/capture/routes.py --case collatz --json results.json

Every attempt runs in its own process with a time limit: it captures the model with its example input and its dynamic
axes, writes the artifact, reads it back, and runs every probe. It is

- correct, when it returns on every probe what eager returns;
- wrong, when on some probe it returns something else and says nothing;
- refused, when it raises, crashes or runs out of time, at capture or on a probe.

The route through onnx-diagnostic needs `pip install onnx-diagnostic==0.9.3 optree "transformers==4.57.*"` (it imports
the last two without declaring them); without them, its column says so.
"""

import argparse
import ast
import importlib
import inspect
import io
import json
import multiprocessing
import os
import re
import sys
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

ROOT = Path(__file__).resolve().parents[2]
# The corpus belongs to the tests; the compiler may be run from a checkout that is not installed.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "capture")]

from carrying import OPSET, Carried, onnx_runner  # noqa: E402
from comparing import difference  # noqa: E402
from corpus import CASES, FIRST_TWELVE, Case  # noqa: E402

Runner = Callable[..., Any]
CORRECT, WRONG, REFUSED = "correct", "wrong", "refused"
SIGNS = {CORRECT: "✓", WRONG: "**wrong**", REFUSED: "refused"}


@dataclass(frozen=True)
class Verdict:
    """What became of one case on one route."""

    case: str
    form: str
    route: str
    outcome: str
    detail: str
    seconds: float


# -- the routes -------------------------------------------------------------------------------------------------------


def dynamic_shapes(case: Case, mark: Callable[[str], Any]) -> dict[str, Any] | None:
    """The axes as `torch.export` wants them, one entry an argument; `mark` makes what stands for a symbol."""
    if not case.dynamic:
        return None
    names = list(inspect.signature(case.reference().forward).parameters)[: len(case.example)]
    marked = {name: {axis: mark(symbol) for axis, symbol in case.dynamic.get(name, {}).items()} for name in names}
    return {name: axes or None for name, axes in marked.items()}


def jit_round_trip(module: Any) -> Runner:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    loaded: Runner = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    return loaded


def trace(case: Case) -> Runner:
    return jit_round_trip(torch.jit.trace(case.reference(), case.example, strict=False))  # type: ignore[no-untyped-call]


def script(case: Case) -> Runner:
    return jit_round_trip(torch.jit.script(case.reference()))


def export(case: Case) -> Runner:
    # AUTO is the most forgiving choice: it relates equal axes by itself, and keeps as a guard what it specialised.
    shapes = dynamic_shapes(case, lambda _: torch.export.Dim.AUTO)
    program = torch.export.export(case.reference(), case.example, dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded: Runner = torch.export.load(buffer).module()
    return loaded


def onnx(case: Case) -> Runner:
    return exported_by_dynamo(case, structure(case))


def through_onnx_diagnostic(case: Case) -> Runner:
    from onnx_diagnostic.torch_export_patches import torch_export_patches

    spec = structure(case)
    with torch_export_patches(patch_torch=True, rewrite=rewritable(case.reference())):
        runner: Runner = exported_by_dynamo(case, spec)
    return runner


def structure(case: Case) -> pytree.TreeSpec:
    with torch.no_grad():
        return pytree.tree_structure(case.reference()(*case.example))


def exported_by_dynamo(case: Case, spec: pytree.TreeSpec) -> Runner:
    exported = torch.onnx.export(
        case.reference(),
        case.example,
        dynamo=True,
        # Names, as its documentation has it. With AUTO it drops the guards of what was specialised: wrong more often.
        dynamic_shapes=dynamic_shapes(case, str),
        external_data=False,
        opset_version=OPSET,
        verbose=False,
    )

    def unflatten(values: list[torch.Tensor]) -> Any:
        # An exporter that drops an output shall be found out by the comparison, not by an exception here.
        return pytree.tree_unflatten(values, spec) if len(values) == spec.num_leaves else values

    assert exported is not None
    return onnx_runner(exported.model_proto.SerializeToString(), unflatten)


def rewritable(module: nn.Module) -> list[tuple[type, str]]:
    """The methods with control flow that the user wrote, which onnx-diagnostic has to be told."""
    methods = []
    for cls in dict.fromkeys(type(m) for m in module.modules()):
        if cls.__module__.startswith("torch."):
            continue
        for name, member in vars(cls).items():
            if name == "__init__" or not inspect.isfunction(member):
                continue
            tree = ast.parse(textwrap.dedent(inspect.getsource(member)))
            if any(isinstance(node, ast.If | ast.IfExp | ast.For | ast.While) for node in ast.walk(tree)):
                methods.append((cls, name))
    return methods


def deploypipe(fmt: str) -> Callable[[Case], Runner]:
    def through(case: Case) -> Runner:
        runner: Runner = Carried(case.build(), case.example, case.dynamic, case.probes).runner(fmt)
        return runner

    return through


ROUTES: dict[str, Callable[[Case], Runner]] = {
    "torch.jit.trace": trace,
    "torch.jit.script": script,
    "torch.export": export,
    "torch.onnx.export(dynamo=True)": onnx,
    "onnx-diagnostic → dynamo=True": through_onnx_diagnostic,
    "deploypipe torchscript": deploypipe("torchscript"),
    "deploypipe onnx": deploypipe("onnx"),
    "deploypipe pt2": deploypipe("pt2"),
}


def missing() -> dict[str, str]:
    """Routes that cannot be measured here, and why."""
    absent = {}
    try:
        importlib.import_module("onnx_diagnostic.torch_export_patches")
    except Exception as error:  # it patches other packages, so versions that do not fit raise anything
        absent["onnx-diagnostic → dynamo=True"] = f"not measured (see --help): {type(error).__name__}: {error}"
    if not (ROOT / "deploypipe" / "compiler").is_dir():
        absent.update(
            {name: "not measured: the compiler is not there" for name in ROUTES if name.startswith("deploypipe")}
        )
    return absent


# -- one attempt ------------------------------------------------------------------------------------------------------


def judge(case: Case, route: str) -> tuple[str, str]:
    """The outcome over all probes, and its reason. A wrong answer outweighs a refusal: it is the worse of the two."""
    try:
        runner = ROUTES[route](case)
    except BaseException as error:  # what an exporter raises is not limited to Exception
        return REFUSED, f"{type(error).__name__}: {first_line(error)}"
    reference, refused = case.reference(), ""
    for number, inputs in enumerate(case.probes):
        with torch.no_grad():
            expected = reference(*(value.clone() for value in inputs))
            try:
                actual = runner(*(value.clone() for value in inputs))
            except Exception as error:
                refused = refused or f"probe {number}: {type(error).__name__}: {first_line(error)}"
                continue
        problem = difference(expected, actual)
        if problem:
            return WRONG, f"probe {number}: {problem}"
    return (REFUSED, refused) if refused else (CORRECT, "")


def first_line(error: BaseException) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # exporters colour their messages
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


def child(case: Case, route: str, connection: Connection) -> None:
    warnings.simplefilter("ignore")
    # Exporters log at length; what matters comes back through the connection.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    torch.set_num_threads(1)
    connection.send(judge(case, route))


def attempt(case: Case, route: str, timeout: float) -> Verdict:
    """One route on one case in a process of its own: a crash or an endless loop costs only itself."""
    fork = multiprocessing.get_context("fork")  # so that torch is imported once
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=child, args=(case, route, sender))
    started = time.perf_counter()
    process.start()
    sender.close()
    outcome, detail = REFUSED, f"no answer in {timeout:.0f} s"
    if receiver.poll(timeout):
        try:
            outcome, detail = receiver.recv()
        except EOFError:
            detail = "the process died"
    process.kill()
    process.join()
    return Verdict(case.name, case.form, route, outcome, detail, round(time.perf_counter() - started, 2))


# -- the table --------------------------------------------------------------------------------------------------------


def table(verdicts: list[Verdict], routes: list[str], by_family: bool) -> str:
    """Markdown: one row a case, or one row a family with counts, and the totals below."""
    lines = ["| form | " + " | ".join(routes) + " |", "| --- |" + " --- |" * len(routes)]
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.form if by_family else f"{verdict.form} (`{verdict.case}`)", []).append(verdict)
    for label, group in groups.items():
        cells = [[v for v in group if v.route == route] for route in routes]
        shown = [counted(cell) if by_family else SIGNS[cell[0].outcome] for cell in cells]
        lines.append(f"| {label} | " + " | ".join(shown) + " |")
    totals = [counted([v for v in verdicts if v.route == route]) for route in routes]
    lines.append("| **total** | " + " | ".join(totals) + " |")
    return "\n".join(lines)


def counted(verdicts: Iterable[Verdict]) -> str:
    tally = Counter(v.outcome for v in verdicts)
    parts = [f"{tally[CORRECT]} ✓"]
    parts += [f"{tally[outcome]} {outcome}" for outcome in (WRONG, REFUSED) if tally[outcome]]
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole corpus, one row a family")
    parser.add_argument("--case", action="append", metavar="NAME", help="this case only (repeat for more)")
    parser.add_argument("--route", action="append", choices=list(ROUTES), help="this route only (repeat for more)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every verdict with its reason here")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for one attempt")
    options = parser.parse_args()
    unknown = set(options.case or ()) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")

    absent = missing()
    routes = [route for route in options.route or ROUTES if route not in absent]
    names = options.case or (list(CASES) if options.all else list(FIRST_TWELVE))
    torch.set_num_threads(1)
    verdicts = []
    for name in names:
        for route in routes:
            verdicts.append(attempt(CASES[name], route, options.timeout))
            print(f"{name} · {route}: {verdicts[-1].outcome} {verdicts[-1].detail}", file=sys.stderr)

    print(f"torch {torch.__version__}, {len(names)} models, every probe against eager.\n")
    print(table(verdicts, routes, by_family=options.all))
    for route, why in absent.items():
        print(f"\n{route}: {why}")
    if options.json:
        payload = {
            "schema": "deploypipe.capture-routes/1",
            "torch": torch.__version__,
            "not_measured": absent,
            "verdicts": [asdict(v) for v in verdicts],
        }
        options.json.write_text(json.dumps(payload, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
