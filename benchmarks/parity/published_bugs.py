"""Published bugs of converters: is the plain exporter silently wrong, does the gate find it, is our own export right?

    python benchmarks/parity/published_bugs.py [--only PATTERN …] [--out FILE.json]
    python benchmarks/parity/published_bugs.py --out FILE.json --show            the table of what was measured
    python benchmarks/parity/published_bugs.py --out FILE.json --show --into docs/parity.md     the same, into that page

The cases are in tests/parity/published_bugs. "plain" is `torch.onnx.export(dynamo=True)` of the pinned version, run
with ONNX Runtime and compared with eager on the case's own edge values; a file that is "spoilt" has had done to it what
the published converter did. "found" is `deploypipe.verify` of that file: by the probes that it draws, by those of
them with NaN and infinities, of which it warns, or only by the edge values given as probes. "ours" is
`deploypipe.export` to ONNX on the same values. With --out, what the file holds is not run again.
"""

import argparse
import fnmatch
import importlib.metadata
import json
import logging
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "parity" / "published_bugs")]

import onnx  # noqa: E402
import torch  # noqa: E402
from case import PublishedBug  # noqa: E402
from cases import CASES  # noqa: E402

import deploypipe  # noqa: E402
from deploypipe.eager import flat_tensors  # noqa: E402

RIGHT, WRONG, REFUSED, FAILS = "right", "wrong", "refused", "fails when run"
DRAWN, STATED, GIVEN = "yes", "yes, as a limit: NaN and infinities", "with the edge values as probes"
MISSED, NOTHING = "no", "–"
RTOL, ATOL = 1e-4, 1e-5
MARKS = ("<!-- Written by benchmarks/parity/published_bugs.py: from here -->", "<!-- to here -->")
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime")
Row = dict[str, str]


def write_plain(case: PublishedBug, path: Path) -> None:
    """By torch's exporter, spoilt where the case says how."""
    free = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in case.axes.items()}
    shapes = {name: free.get(name) for name, _ in named_inputs(case)}
    torch.onnx.export(
        case.module(), case.example, str(path), dynamo=True, external_data=False, verbose=False, dynamic_shapes=shapes
    )
    if case.spoilt is not None:
        model = onnx.load(str(path))
        case.spoilt(model)
        onnx.save(model, str(path))


def held_on(case: PublishedBug) -> list[tuple[torch.Tensor, ...]]:
    """The example, the edge values, and the first row of the example alone, where that is another call."""
    rows = [tensor[:1] if 0 in case.axes.get(name, ()) else tensor for name, tensor in named_inputs(case)]
    alone = any(len(row) < len(tensor) for row, tensor in zip(rows, case.example, strict=True) if tensor.dim())
    return [case.example, *case.edges, *([tuple(rows)] if alone else [])]


def named_inputs(case: PublishedBug) -> list[tuple[str, torch.Tensor]]:
    return list(zip("xyz", case.example, strict=False))


def difference(case: PublishedBug, path: Path) -> str:
    """What the file at `path` answers otherwise than eager on the case's inputs; "" where nothing."""
    runner = deploypipe.load(path)
    module = case.module()
    for inputs in held_on(case):
        with torch.no_grad():
            wanted, _ = flat_tensors(module(*(tensor.clone() for tensor in inputs)))
        found, _ = flat_tensors(runner(*inputs))
        sizes = [tensor[tensor.isfinite()].double().abs() for tensor in wanted]
        largest = max([1.0, *(size.max().item() for size in sizes if size.numel())])
        try:
            torch.testing.assert_close(found, wanted, rtol=RTOL, atol=ATOL * largest, equal_nan=True)
        except AssertionError as error:
            return " ".join(str(error).split())[:200]
    return ""


def plain(case: PublishedBug, path: Path) -> Row:
    try:
        write_plain(case, path)
        deploypipe.load(path)
    except Exception as error:
        path.unlink(missing_ok=True)
        return {"plain": REFUSED, "why": reason(error)}
    try:
        differs = difference(case, path)
    except Exception as error:
        return {"plain": FAILS, "why": reason(error)}
    return {"plain": WRONG if differs else RIGHT, "why": differs}


def found_by_gate(case: PublishedBug, path: Path) -> str:
    """Whether the gate rejects the file, and what it needs for that."""
    report = deploypipe.verify(case.module(), path, example=case.example, dynamic=case.axes)
    if not report.passed:
        return DRAWN
    given = held_on(case)
    finite = [inputs for inputs in given if all(tensor.isfinite().all() for tensor in inputs)]
    if report.remarks and deploypipe.verify(case.module(), path, finite).passed:
        return STATED
    return MISSED if deploypipe.verify(case.module(), path, given).passed else GIVEN


def ours(case: PublishedBug, path: Path) -> Row:
    try:
        deploypipe.export(
            case.module(), case.example, format="onnx", path=path, dynamic=case.axes, probes=held_on(case)
        )
    except Exception as error:
        return {"ours": REFUSED, "refusal": reason(error)}
    differs = difference(case, path)
    return {"ours": WRONG if differs else RIGHT, "refusal": differs}


def examined(case: PublishedBug, folder: Path) -> Row:
    path = folder / "plain.onnx"
    row = plain(case, path)
    wrong = row["plain"] in (WRONG, FAILS) or (case.spoilt is not None and path.exists())
    row["found"] = found_by_gate(case, path) if wrong else NOTHING
    return row | ours(case, folder / "ours.onnx")


def reason(error: BaseException) -> str:
    """The first line of the innermost cause, without the folder of the file."""
    while error.__cause__ is not None and not isinstance(error, deploypipe.DeploypipeError):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = re.sub(r"/\S*/(?=\w+\.(?:onnx|py)\b)", "", lines[0]) if lines else ""
    return f"{type(error).__name__}: {said}"[:300]


# -- the table


def table(rows: Mapping[str, Row]) -> str:
    lines = ["| bug | published | plain exporter | found by the gate | our export |", "| --- | --- | --- | --- | --- |"]
    for id, row in rows.items():
        case = CASES[id]
        plain_said = "spoilt by us" if case.spoilt is not None else _shown(row["plain"])
        lines.append(f"| {id} | {case.source} | {plain_said} | {_shown(row['found'])} | {_shown(row['ours'])} |")
    return "\n".join(lines)


def _shown(outcome: str) -> str:
    return f"**{outcome}**" if outcome in (WRONG, FAILS, MISSED) else outcome


def summary(rows: Mapping[str, Row]) -> str:
    own = {id: row for id, row in rows.items() if CASES[id].spoilt is None}
    found = Counter(row["found"] for row in rows.values())
    plain_said, ours_said = Counter(row["plain"] for row in own.values()), Counter(row["ours"] for row in rows.values())
    versions = ", ".join(f"{name} {version}" for name in LIBRARIES if (version := _version(name)))
    said = [
        f"{len(rows)} cases with {versions}.",
        f"The plain exporter is silently wrong in {plain_said[WRONG]} of {len(own)}, writes a file that fails in "
        f"{plain_said[FAILS]} and refuses {plain_said[REFUSED]}; {len(rows) - len(own)} more files are spoilt by us.",
        f"Of these {sum(found.values()) - found[NOTHING]} wrong files the gate finds {found[DRAWN]} by the probes that "
        f"it draws, and says of {found[STATED]} that they differ on NaN and infinities; it finds {found[GIVEN]} more "
        f"when the edge values are given as probes, and misses {found[MISSED]}.",
        f"Our own export is right in {ours_said[RIGHT]}, wrong in {ours_said[WRONG]} and refuses {ours_said[REFUSED]}.",
    ]
    refused = [f"- {id}: {' '.join(row['refusal'].split())}" for id, row in rows.items() if row["ours"] != RIGHT]
    listed = ["", "What our own export refuses, and why:", "", *refused] if refused else []
    return "\n".join([*said, *listed])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def write_into(page: Path, text: str) -> None:
    """Between the marks lies what was measured."""
    before, _, rest = page.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")


# -- the command


def measure(ids: Iterable[str], rows: dict[str, Row], out: Path | None) -> None:
    for id in ids:
        if id in rows:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows[id] = examined(CASES[id], Path(folder))
        row = rows[id]
        print(
            f"{id:45} plain {row['plain']:15} found {row['found']:10} ours {row['ours']}", file=sys.stderr, flush=True
        )
        if out:
            partial = out.with_suffix(".part")
            partial.write_text(json.dumps(rows, indent=1))
            partial.replace(out)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="cases whose name matches one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results as JSON; what it holds is not run again")
    parser.add_argument("--show", action="store_true", help="only the table of --out")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the table into that page, between its marks")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    held: Any = json.loads(chosen.out.read_text()) if chosen.out and chosen.out.exists() else {}
    rows: dict[str, Row] = held
    ids = [id for id in CASES if any(fnmatch.fnmatch(id, pattern) for pattern in chosen.only)]
    if not chosen.show:
        measure(ids, rows, chosen.out)
    known = {id: rows[id] for id in ids if id in rows}
    text = f"{summary(known)}\n\n{table(known)}"
    if chosen.into:
        write_into(chosen.into, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
