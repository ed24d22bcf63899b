"""How many artifacts that are wrong on purpose the parity gate rejects.

    python benchmarks/parity/mutants.py                # every mutant in every format that can have it
    python benchmarks/parity/mutants.py --quick        # every mutant in one format, the formats taking turns
    python benchmarks/parity/mutants.py --name batch   # those whose kind or name matches

Trains `simple-cnn` on the digits for two epochs, then makes each mutant and asks the gate. A mutant is rejected when
the gate fails it, named when the gate's reason says what is wrong with it, and located when localisation ends where the
fault was put. Exits with 1 when any passes.
"""

import argparse
import json
import logging
import re
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
# The mutants belong to the tests.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "parity")]

from mutation import KINDS, Mutant, Subjects  # noqa: E402

from deploypipe.formats import FORMATS  # noqa: E402
from deploypipe.train import TrainConfig, train  # noqa: E402

Row = dict[str, str | bool]


def judge(subjects: Subjects, kind: str, mutant: Mutant, format: str) -> Row:
    with tempfile.TemporaryDirectory(prefix="deploypipe-") as folder:
        path = Path(folder) / f"mutant{FORMATS[format].suffix}"
        mutant.make(subjects[mutant.subject], format, path)
        found = mutant.judge(subjects[mutant.subject], path)
    reason = found.reason.replace(str(path), path.name) if found else ""
    named = bool(found and re.search(mutant.reason, reason, re.IGNORECASE))
    located = re.search(mutant.culprit, found.culprit) is not None if found and found.culprit else False
    return {"kind": kind, "mutant": mutant.name, "format": format, "rejected": bool(found), "named": named,
            "in one place": bool(mutant.culprit), "located": located, "reason": reason}  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown: rejected of tried, a row a kind."""
    cells: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        for kind in (str(row["kind"]), "**all**"):
            for format in (str(row["format"]), "all"):
                cells[kind, format].append(row)
    kinds = dict.fromkeys(kind for kind, _ in cells if kind != "**all**")
    columns = [*FORMATS, "all"]
    lines = ["| mutants of | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for kind in (*kinds, "**all**"):
        lines.append(f"| {kind} | " + " | ".join(shown(cells[kind, format]) for format in columns) + " |")
    return "\n".join(lines)


def shown(rows: list[Row]) -> str:
    return f"{sum(bool(row['rejected']) for row in rows)} of {len(rows)}" if rows else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each mutant in one format, the formats taking turns")
    parser.add_argument("--name", default="", metavar="REGEX", help="only mutants whose kind or name matches")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every verdict with its reason here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)

    chosen = [(kind, mutant) for kind, mutants in KINDS.items() for mutant in mutants
              if re.search(options.name, f"{kind} {mutant.name}")]  # fmt: skip
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="deploypipe-") as folder:
        run = train(TrainConfig(model="simple-cnn", data="digits", epochs=2, device="cpu"), Path(folder) / "run")
        subjects = Subjects(run, Path(folder))
        for turn, (kind, mutant) in enumerate(chosen):
            formats = mutant.formats
            for format in formats[turn % len(formats) :][:1] if options.quick else formats:
                rows.append(judge(subjects, kind, mutant, format))
                verdict = "PASSES" if not rows[-1]["rejected"] else "named" if rows[-1]["named"] else "rejected"
                print(f"{kind} · {mutant.name} · {format}: {verdict}", file=sys.stderr, flush=True)

    print(f"torch {torch.__version__}, rejected of tried:\n")
    print(table(rows))
    rejected, named = (sum(bool(row[key]) for row in rows) for key in ("rejected", "named"))
    placed = [row for row in rows if row["in one place"]]
    located = sum(bool(row["located"]) for row in placed)
    print(
        f"\n{len(chosen)} mutants, {len(rows)} artifacts: {rejected} rejected, {named} with the reason that names it."
    )
    print(f"Of the {len(placed)} with a fault in one operator or weight, localisation ends there in {located}.")
    if options.json:
        document = {"schema": "deploypipe.mutants/1", "torch": torch.__version__, "results": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.exit(rejected < len(rows))


if __name__ == "__main__":
    main()
