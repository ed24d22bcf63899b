"""`deploypipe train` against the published trainings beside this file: the time to 99 % of the MNIST test set.

    python benchmarks/training/compare.py --data-dir DIR
    python benchmarks/training/compare.py --data-dir DIR --seeds 10 --baseline-seeds 3 --accurate-seeds 5

Each training is a process of its own, one after the other, `deploypipe train` with its defaults and a baseline in
turn, so that what the machine does meanwhile falls on all of them. Three times are shown of each:

- training: the program's own clock. Of a baseline, until the first epoch that reaches 99.0 %, evaluations not counted;
  of `deploypipe`, the whole training, which counts only where the final test accuracy is at least 99.0 %.
- with evaluation: the same, with the test set's evaluations.
- process: from start to end of the process, with imports, reading the data and writing the run.

The results are in --out after each training; the same command goes on from there. Run it on a machine that does
nothing else.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE.parent)]

from comparison import Row, begun, cells, machine, spread  # noqa: E402
from loop import TARGET  # noqa: E402

from deploypipe.files import write_json  # noqa: E402

SCHEMA = "deploypipe.benchmark.training/1"
OURS, ACCURATE = "deploypipe train", "deploypipe train --recipe accurate"
BASELINES = {
    # name: script, what it is called in the tables
    "pytorch-examples": ("pytorch_examples.py", "pytorch/examples"),
    "simple-cnn": ("simple_cnn.py", "simple-cnn, SGD 0.01, batch 100"),
    "cnn": ("cnn.py", "cnn, SGD + momentum, batch 64"),
    "mlp": ("mlp.py", "mlp, Adam 0.001, batch 64"),
}
Job = tuple[str, int]
"""A program and a seed."""


def main() -> None:
    asked = _arguments()
    settings = {"data": asked.data, "trial": asked.trial} | _machine()
    document = begun(asked.out, SCHEMA, settings)
    wanted = _jobs(asked)
    done = {(row["program"], row["seed"]) for row in document["results"]}
    for number, job in enumerate(wanted, start=1):
        if job in done:
            continue
        row = _measure(*job, asked)
        document["results"].append(row)
        write_json(asked.out, document)
        print(f"{number}/{len(wanted)}  {_name(row['program'])}, seed {row['seed']}: {row['accuracy']:.2%} "
              f"after {row['seconds']:.1f} s", file=sys.stderr)  # fmt: skip
    rows = [row for row in document["results"] if (row["program"], row["seed"]) in set(wanted)]
    document["summary"] = {program: _summary(_of(rows, program)) for program in dict.fromkeys(p for p, _ in wanted)}
    document["ratios"] = _ratios(document["summary"])
    write_json(asked.out, document)
    print("\n".join(_report(document, rows)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path, help="default: where deploypipe looks")
    parser.add_argument("--seeds", type=int, default=10, help="of deploypipe train (default: 10)")
    parser.add_argument("--baseline-seeds", type=int, default=1, help="of each baseline (default: 1)")
    parser.add_argument("--accurate-seeds", type=int, default=0, help="of deploypipe train --recipe accurate")
    parser.add_argument("--baselines", nargs="*", choices=list(BASELINES), default=list(BASELINES))
    parser.add_argument("--trial", action="store_true", help="one epoch of few images: whether it runs, not how fast")
    parser.add_argument("--out", type=Path, default=Path("runs/training-comparison.json"))
    return parser.parse_args()


def _machine() -> Row:
    return machine() | {
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }


def _jobs(asked: argparse.Namespace) -> list[Job]:
    """Ours and the others' in turn; the longer list's rest at the end."""
    ours = [(OURS, seed) for seed in range(asked.seeds)]
    others = [(name, seed) for seed in range(asked.baseline_seeds) for name in asked.baselines]
    others += [(ACCURATE, seed) for seed in range(asked.accurate_seeds)]
    return [job for job in chain.from_iterable(zip_longest(ours, others)) if job]


# -- one training


def _measure(program: str, seed: int, asked: argparse.Namespace) -> Row:
    where = ["--data", asked.data, *(["--data-dir", str(asked.data_dir)] if asked.data_dir else [])]
    if program in BASELINES:
        trial = ["--epochs", "1", "--limit", "500"] if asked.trial else []
        seconds, row = _run([str(HERE / BASELINES[program][0]), *where, "--seed", str(seed), *trial])
        return row | {"process_seconds": seconds}
    with tempfile.TemporaryDirectory(prefix="deploypipe-") as scratch:
        options = program.split()[2:] + (["--epochs", "1"] if asked.trial else [])
        argv = ["-m", "deploypipe", "train", *options, *where, "--seed", str(seed), "--out", f"{scratch}/run", "--json"]
        seconds, run = _run(argv)
    return _row_of(run, program, seed) | {"process_seconds": seconds}


def _row_of(run: Row, program: str, seed: int) -> Row:
    """What a run.json says, as the baselines say it."""
    accuracy = run["metrics"]["accuracy"]
    return {
        "program": program,
        "seed": seed,
        "device": run["device"],
        "commit": run["git_commit"],
        "epochs": run["epochs"],
        "accuracy": accuracy,
        "seconds": run["seconds"],
        "seconds_with_evaluation": run["seconds"] + run["phases"]["evaluate"],
        "reached": accuracy >= TARGET,
        "images_per_second": run["images_per_second"],
        "phases": run["phases"],
    }


def _run(argv: Sequence[str]) -> tuple[float, Row]:
    """Seconds that the process took, and the JSON object that it printed."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"error: {' '.join(argv)} ended with {done.returncode}:\n{done.stderr}")
    document: Row = json.loads(done.stdout)
    return seconds, document


# -- all of them


def _of(rows: Sequence[Row], program: str) -> list[Row]:
    return sorted((row for row in rows if row["program"] == program), key=lambda row: int(row["seed"]))


def _summary(rows: Sequence[Row]) -> Row:
    def clock(field: str, only: Callable[[Row], bool] = lambda row: True) -> Row | None:
        return spread([row[field] for row in rows if only(row)])

    def reached(row: Row) -> bool:
        return bool(row["reached"])

    accuracies = [row["accuracy"] for row in rows]
    return {
        "seeds": len(rows),
        "reached": sum(map(reached, rows)),
        "accuracy": {"mean": statistics.fmean(accuracies), "min": min(accuracies), "max": max(accuracies)},
        "seconds_to_target": clock("seconds", reached),
        "seconds_to_target_with_evaluation": clock("seconds_with_evaluation", reached),
        "process_seconds_to_target": clock("process_seconds", reached),
        "seconds": clock("seconds"),
        "process_seconds": clock("process_seconds"),
        "images_per_second": clock("images_per_second"),
    }


def _ratios(summary: Row) -> Row:
    """How many times as long each baseline takes as `deploypipe train`, by medians. Of one that never reached the
    target it is the time of all its epochs: it takes longer than that."""
    ours = summary.get(OURS)
    if ours is None or ours["seconds_to_target"] is None:
        return {}

    def ratio(clock: str, theirs: Row) -> float:
        slower = theirs[f"{clock}_to_target"] or theirs[clock]
        return float(slower["median"] / ours[f"{clock}_to_target"]["median"])

    return {
        program: {
            "reached": bool(found["seconds_to_target"]),
            "training": ratio("seconds", found),
            "process": ratio("process_seconds", found),
        }
        for program, found in summary.items()
        if program in BASELINES
    }


def _report(document: Row, rows: Sequence[Row]) -> Iterator[str]:
    settings, summary = document["settings"], document["summary"]
    yield (f"{settings['cpu']}, {settings['cores']} cores, {settings['threads']} threads, "
           f"GPU: {settings['gpu'] or 'none'}, torch {settings['torch']}, Python {settings['python']}")  # fmt: skip
    if settings["trial"]:
        yield "A trial: one epoch of few images. The times mean nothing."
    yield ""
    yield (f"| training | seeds | reached {TARGET:.1%} | test accuracy: mean (min to max) "
           "| seconds to it: median (min to max) | with evaluation | process | images/s |")  # fmt: skip
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for program, found in summary.items():
        accuracy = found["accuracy"]
        yield cells([
            _name(program),
            found["seeds"],
            found["reached"],
            f"{accuracy['mean']:.2%} ({accuracy['min']:.2%} to {accuracy['max']:.2%})",
            _spread(found["seconds_to_target"]),
            _spread(found["seconds_to_target_with_evaluation"]),
            _spread(found["process_seconds_to_target"]),
            f"{found['images_per_second']['median']:,.0f}",
        ])  # fmt: skip
    yield ""
    for program, ratio in document["ratios"].items():
        more = "" if ratio["reached"] else "more than "
        yield (f"{_name(program)} takes {more}{ratio['training']:.1f} times the training time "
               f"and {more}{ratio['process']:.1f} times the process time.")  # fmt: skip
    yield ""
    for program in summary:
        accuracies = [format(row["accuracy"], ".2%") for row in _of(rows, program)]
        yield f"{_name(program)}, by seed: {', '.join(accuracies)}"


def _name(program: str) -> str:
    return BASELINES[program][1] if program in BASELINES else f"`{program}`"


def _spread(found: Row | None) -> str:
    return f"{found['median']:.1f} ({found['min']:.1f} to {found['max']:.1f})" if found else "not reached"


if __name__ == "__main__":
    main()
