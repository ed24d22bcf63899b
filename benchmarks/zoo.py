"""Models that people ship, exported by deploypipe and by PyTorch's own tools, and compared with eager at another size.

    python benchmarks/zoo.py [--only PATTERN] [--formats pt2,onnx,torchscript] [--out FILE.json] [--no-plain]
    python benchmarks/zoo.py --capture-only --no-plain     capture alone: neither written nor proven
    python benchmarks/zoo.py --out FILE.json --show        the tables of what was measured, nothing is run
    python benchmarks/zoo.py --out FILE.json --show --into docs/models.md       the same, at the end of that page

The models are in tests/zoo/zoo_models. Each runs in a child process of its own for each tool, with a time limit. With
--out, what the file holds already is not run again, so a run that was stopped goes on where it ended; --again runs
deploypipe again and keeps what the plain tools did.

The plain tools are `torch.export.export` and `torch.onnx.export(dynamo=True)`, given the same axes as `Dim.DYNAMIC`.
Processor seconds are those of capture and writing; what deploypipe spends on its proof is listed apart.
"""

import argparse
import fnmatch
import importlib
import importlib.util
import inspect
import json
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "zoo")]

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from zoo_models import ZOO, ZooCall, ZooModel  # noqa: E402
from zoo_models.comparison import capture_of, difference, run, run_captured  # noqa: E402

RIGHT, WRONG, REFUSED, LATE, BROKEN = "right", "wrong", "refused", "time limit", "the model itself fails"
PLAIN = {"pt2": "torch.export", "onnx": "torch.onnx.export"}
"""Which plain tool a format of ours is compared with."""
CAPTURE = "capture"
FORMATS = ("pt2", "onnx", "torchscript")
LIBRARIES = ("onnxruntime", "onnxscript", "torchvision", "transformers", "timm", "diffusers", "torch_geometric.nn",
             "segmentation_models_pytorch")  # fmt: skip
Row = dict[str, Any]
Runner = Callable[[ZooCall], Any]


class Meter:
    """Processor seconds of this process, by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, step: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before = time.process_time()
        try:
            return work(*args, **kwargs)
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.process_time() - before


# -- the axes, as torch's own tools take them


def path_of(keys: Sequence[Any]) -> str:
    """`images[0]`, `past.keys[1]`."""
    text = ""
    for key in keys:
        if isinstance(key, pytree.SequenceKey):
            text += f"[{key.idx}]"
        else:
            text += f".{key.key if isinstance(key, pytree.MappingKey) else key.name}"
    return text.removeprefix(".")


def tensors_by_path(module: nn.Module, call: ZooCall) -> dict[str, Tensor]:
    signature = inspect.signature(module.forward)
    bound = dict(signature.bind(*call.args, **call.kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            bound |= bound.pop(name, {})
    return {path_of(keys): leaf for keys, leaf in pytree.tree_leaves_with_path(bound) if isinstance(leaf, Tensor)}


def dynamic_shapes(module: nn.Module, model: ZooModel, call: ZooCall) -> Any:
    """The axes as torch's own tools take them."""
    from torch.export import Dim, ShapesCollection

    found, shapes = tensors_by_path(module, call), ShapesCollection()
    for path, axes in model.dynamic.items():
        dims = {}
        for axis, name in axes.items():
            factor, _, symbol = name.rpartition("*")
            dims[axis] = int(factor) * Dim(symbol) if factor else Dim.DYNAMIC
        shapes[found[path]] = dims
    return shapes.dynamic_shapes(module, call.args, call.kwargs) if model.dynamic else None


# -- the tools: each writes, and returns what runs the file that it wrote


def plain_export(model: ZooModel, module: nn.Module, folder: Path, meter: Meter) -> Runner:
    call = model.example
    shapes = dynamic_shapes(module, model, call)
    program = meter.time("capture", torch.export.export, module, call.args, call.kwargs, dynamic_shapes=shapes)
    meter.time("write", torch.export.save, program, folder / "model.pt2")
    loaded = torch.export.load(folder / "model.pt2").module()
    return lambda call: run(loaded, call)


def plain_onnx(model: ZooModel, module: nn.Module, folder: Path, meter: Meter) -> Runner:
    call = model.example
    shapes = dynamic_shapes(module, model, call)
    program = meter.time(
        "capture", torch.onnx.export, module, call.args, kwargs=call.kwargs, dynamic_shapes=shapes, dynamo=True,
        verbose=False,
    )  # fmt: skip
    meter.time("write", program.save, folder / "model.onnx")
    return lambda call: run(program, call)


def ours(format: str) -> Callable[[ZooModel, nn.Module, Path, Meter], Runner]:
    def tool(model: ZooModel, module: nn.Module, folder: Path, meter: Meter) -> Runner:
        import deploypipe
        from deploypipe.export import plan, write_proven
        from deploypipe.formats import format_named

        captured = meter.time("capture", capture_of, module, model.example, model.dynamic)
        prepared = meter.time("proof", plan, captured)
        path, entry = folder / f"model{format_named(format).suffix}", format_named(format)

        def write(*args: Any, **kwargs: Any) -> Any:
            return meter.time("write", entry.write, *args, **kwargs)

        before = meter.seconds.get("write", 0.0)
        _, report = meter.time("proof", write_proven, prepared, format, path, write=write)
        meter.seconds["proof"] -= meter.seconds.get("write", 0.0) - before
        report.raise_if_failed()
        loaded = deploypipe.load(path)
        return lambda call: run(loaded, call)

    return tool


def only_capture(model: ZooModel, module: nn.Module, folder: Path, meter: Meter) -> Runner:
    """The captured program as it is, without a file, a gate or a runner."""
    captured = meter.time("capture", capture_of, module, model.example, model.dynamic)
    return lambda call: run_captured(captured, module, call)


TOOLS: dict[str, Callable[[ZooModel, nn.Module, Path, Meter], Runner]] = {
    "torch.export": plain_export,
    "torch.onnx.export": plain_onnx,
    **{format: ours(format) for format in FORMATS},
    CAPTURE: only_capture,
}

# -- one model with one tool, in a process of its own


def attempt(model: ZooModel, tool: str) -> Row:
    """What came of it. "wrong" is what no tool may do; "refused" has the reason's first line."""
    meter = Meter()
    try:
        expected = run(model.module(), model.another_call)
        run(model.module(), model.example)
    except Exception as error:
        return {"outcome": BROKEN, "reason": reason_of(error), "detail": traceback.format_exc()[-4000:]}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row: Row
    with tempfile.TemporaryDirectory() as folder:
        try:
            runner = TOOLS[tool](model, model.module(), Path(folder), meter)
            try:
                differs = difference(expected, runner(model.another_call))
                row = {"outcome": WRONG if differs else RIGHT, "reason": differs}
            except Exception as error:
                # An artifact that says no at another size is not silently wrong, but it does not carry the axes.
                row = {"outcome": REFUSED, "reason": f"at another size: {reason_of(error)}", "detail": detail(error)}
        except Exception as error:
            row = {"outcome": REFUSED, "reason": reason_of(error), "detail": detail(error)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return row | {"seconds": {k: round(v, 2) for k, v in meter.seconds.items()}, "peak_mb": (peak - before) // 1024}


def reason_of(error: BaseException) -> str:
    """The first line that says something, of the innermost error that caused it."""
    seen: BaseException = error
    while seen.__cause__ is not None and type(error).__module__.split(".")[0] != "deploypipe":
        seen = error = seen.__cause__
    lines = [line.strip() for line in str(seen).splitlines() if line.strip()]
    specific = [line for line in lines if re.match(r"- .*|.*but your code specialized.*", line)]
    shown = " ".join([*lines[:1], *(specific[:1] if "Constraints violated" in str(seen) else [])])
    text = re.sub(r"/\S*?site-packages/|/\S*/(?=model\.)", "", f"{type(seen).__name__}: {shown}").replace(
        f"{ROOT}/", ""
    )
    return text[:300]


def detail(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-6000:]


def in_child(model: ZooModel, tool: str, limit: float) -> Row:
    """Forked, so that the libraries are imported once."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(model, tool, theirs))
    child.start()
    theirs.close()
    try:
        if ours.poll(limit):
            return dict(ours.recv())
        return {"outcome": LATE, "reason": f"no answer after {limit:g} s"}
    except EOFError:
        child.join()
        return {"outcome": REFUSED, "reason": f"the process ended with {child.exitcode}"}
    finally:
        child.kill()
        child.join()


def _child(model: ZooModel, tool: str, answer: Connection) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    answer.send(attempt(model, tool))
    answer.close()
    os._exit(0)


# -- the tables

MARK = "<!-- Written by benchmarks/zoo.py: change nothing below. -->"
MARKS = {RIGHT: "yes", WRONG: "**wrong**", REFUSED: "no", LATE: "too long", BROKEN: "broken"}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| --: " * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def tools_in(results: Mapping[str, Row]) -> list[str]:
    return [tool for tool in TOOLS if any(tool in row for row in results.values())]


def by_family(results: Mapping[str, Row]) -> str:
    """How many of those that were run were right, and how many were wrong, if any."""
    tools = tools_in(results)
    families: dict[str, list[Row]] = {}
    for id, row in results.items():
        families.setdefault(ZOO[id].family, []).append(row)
    families["all"] = list(results.values())

    def cell(rows: list[Row], tool: str) -> str:
        outcomes = [row[tool]["outcome"] for row in rows if tool in row]
        wrong = f" ({outcomes.count(WRONG)} wrong)" if WRONG in outcomes else ""
        return f"{outcomes.count(RIGHT)} of {len(outcomes)}{wrong}" if outcomes else "–"

    lines = [[name, len(rows), *(cell(rows, tool) for tool in tools)] for name, rows in families.items()]
    return table(["family", "models", *tools], lines)


def by_model(results: Mapping[str, Row]) -> str:
    """Whether each tool was right, with the processor seconds of capture and writing."""
    tools = tools_in(results)

    def cell(found: Row | None) -> str:
        if found is None:
            return "–"
        spent = sum(found.get("seconds", {}).get(step, 0.0) for step in ("capture", "write"))
        return f"{MARKS[found['outcome']]}{f' {spent:.1f} s' if found['outcome'] == RIGHT else ''}"

    return table(["model", *tools], [[id, *(cell(row.get(tool)) for tool in tools)] for id, row in results.items()])


def reasons(results: Mapping[str, Row]) -> str:
    """A line for each model that a tool of ours, or else a plain one, did not carry."""
    tools = tools_in(results)
    lines = []
    for id, row in results.items():
        for tool in tools:
            found = row.get(tool)
            if found and found["outcome"] != RIGHT:
                lines.append(f"- `{id}`, {tool}, {found['outcome']}: {' '.join(found['reason'].split())}")
    return "\n".join(lines)


def report(results: Mapping[str, Row]) -> str:
    parts = {"By family": by_family, "What is refused, and why": reasons, "By model": by_model}
    return "\n\n".join(f"## {title}\n\n{part(results)}" for title, part in parts.items()) + "\n"


def write_into(page: Path, text: str) -> None:
    """All below the mark is what was measured."""
    kept = page.read_text().partition(MARK)[0]
    page.write_text(f"{kept}{MARK}\n\n{text}")


# -- the command


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="PATTERN,…", help="models whose id, or family, matches")
    parser.add_argument("--formats", default="pt2,onnx,torchscript", help="deploypipe's formats; '' for none")
    parser.add_argument(
        "--plain", action=argparse.BooleanOptionalAction, default=True, help="PyTorch's own tools as well"
    )
    parser.add_argument("--capture-only", action="store_true", help="capture alone, in place of the formats")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results as JSON; what it holds is not run again")
    parser.add_argument("--again", action="store_true", help="run deploypipe again, whatever --out holds")
    parser.add_argument("--show", action="store_true", help="only print the tables of --out")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="replace that page's tables")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop then; with --out it goes on later")
    parser.add_argument("--limit", type=float, default=180, metavar="SECONDS", help="for each model and tool")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    formats = [CAPTURE] if chosen.capture_only else [name for name in chosen.formats.split(",") if name]
    tools = [*(PLAIN.values() if chosen.plain else ()), *formats]
    results: dict[str, Row] = json.loads(chosen.out.read_text()) if chosen.out and chosen.out.exists() else {}
    if not chosen.show:
        measure(chosen, tools, results)
    shown = report({id: results[id] for id, model in ZOO.items() if id in results and _matches(model, chosen.only)})
    if chosen.into:
        write_into(chosen.into, shown)
    else:
        print(shown)


def measure(chosen: argparse.Namespace, tools: Sequence[str], results: dict[str, Row]) -> None:
    torch.set_num_threads(1)
    models = in_turn(model for model in ZOO.values() if _matches(model, chosen.only))
    wanted = {model.library for model in models}
    for library in LIBRARIES:
        if library.partition(".")[0] in wanted or library.startswith("onnx"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    importlib.import_module(library)
                except ImportError:
                    print(f"{library} is not installed: its models are left out", file=sys.stderr)
    end = time.monotonic() + 60 * chosen.minutes
    for model in models:
        if importlib.util.find_spec(model.library) is None:
            continue
        row = results.setdefault(model.id, {})
        for tool in tools:
            if tool in row and not (chosen.again and tool not in PLAIN.values()):
                continue
            if time.monotonic() > end:
                return
            row[tool] = in_child(model, tool, chosen.limit)
            line = f"{model.id:60} {tool:18} {row[tool]['outcome']:10} {row[tool]['reason'][:100]}"
            print(line, file=sys.stderr, flush=True)
            if chosen.out:
                partial = chosen.out.with_suffix(".part")
                partial.write_text(json.dumps(results, indent=1))
                partial.replace(chosen.out)


def in_turn(models: Iterable[ZooModel]) -> list[ZooModel]:
    """The first of each family, then the second of each: a run that is stopped has seen every kind."""
    turns: dict[str, int] = {}
    places = {}
    for model in models:
        turns[model.family] = turn = turns.get(model.family, 0) + 1
        places[model.id] = turn
    return sorted((ZOO[id] for id in places), key=lambda model: places[model.id])


def _matches(model: ZooModel, patterns: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(",") for name in (model.id, model.family))


if __name__ == "__main__":
    main()
