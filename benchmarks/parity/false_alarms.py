"""How many honest artifacts the parity gate rejects: none, or it is wrong.

    python benchmarks/parity/false_alarms.py            # 5 seeds
    python benchmarks/parity/false_alarms.py --quick    # 1 seed
    python benchmarks/parity/false_alarms.py --zoo      # the models of the zoo alone
    python benchmarks/parity/false_alarms.py --networks 300 --seeds 5    # ordinary networks, drawn at random, instead

For each seed, every model of the zoo is trained for an epoch (on the digits, the line or the sentences; one that does
not learn gets random weights), and so get the small modules of the mutation suite. Each is exported in every format
and then examined from its file again: probes, test set, other settings, a process of its own. With `--networks` it
is random networks instead (`random_networks.py`), each with weights of its own: exported once, with the first seed,
and verified with `--seeds - 1` further seeds of what the gate draws. What cannot be exported at all is counted apart.
Exits with 1 when anything is rejected.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
# The small modules belong to the tests.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "parity")]

import random_networks  # noqa: E402
from mutation import HONEST  # noqa: E402
from mutation.subjects import TRAINED, untrained  # noqa: E402

from deploypipe.capture import capture  # noqa: E402
from deploypipe.errors import DeploypipeError, ExportError  # noqa: E402
from deploypipe.export import (  # noqa: E402
    Plan,
    plan,
    plan_run,
    write_proven,
)
from deploypipe.formats import FORMATS  # noqa: E402
from deploypipe.models import MODELS  # noqa: E402
from deploypipe.train import TrainConfig, train  # noqa: E402
from deploypipe.verify import Terms, gate_for  # noqa: E402

OFFLINE = {"auto": "digits"}
"""What stands for a dataset that may have to be fetched."""


def honest(seed: int, folder: Path, zoo_only: bool) -> Iterator[tuple[str, Plan]]:
    for name, entry in MODELS.items():
        if entry.datasets:
            data = OFFLINE.get(entry.datasets[0], entry.datasets[0])
            config = TrainConfig(model=name, data=data, epochs=1, seed=seed, device="cpu")
            yield name, plan_run(train(config, folder / name))
        else:
            torch.manual_seed(seed)
            yield name, plan(capture(entry.build(), entry.example(), entry.dynamic, entry.outputs))
    for name in () if zoo_only else HONEST:
        if name != TRAINED:
            yield f"suite: {name}", untrained(name, folder, seed).plan


def rejection(prepared: Plan, format: str, path: Path) -> str:
    """The gate's reason, at export and again from the file; "" where it passes."""
    try:
        report = write_proven(prepared, format, path)[1]
        return report.reason or prepared.gate.examine(path).reason
    except DeploypipeError as error:
        return str(error)


def try_networks(count: int, seeds: int, first: int) -> int:
    """How many artifacts are rejected, at export or when they are verified with another seed; a line on standard error
    for each, and a table at the end."""
    counts: dict[str, Counter[str]] = {format: Counter() for format in FORMATS}
    for number in range(first, first + count):
        drawn = random_networks.network(number)
        with tempfile.TemporaryDirectory(prefix="deploypipe-") as folder:
            try:
                captured = capture(drawn.module, drawn.inputs, drawn.dynamic)
                prepared = plan(captured)
            except ExportError as error:
                for format in FORMATS:
                    counts[format]["not exported"] += 1
                print(f"{drawn.name} · not captured: {error}", file=sys.stderr, flush=True)
                continue
            signature = captured.signature
            gates = [
                gate_for(captured.module, captured.example_inputs, signature.inputs, None, Terms(seed=seed),
                         limits=signature.limits)
                for seed in range(1, seeds)
            ]  # fmt: skip
            for format in FORMATS:
                path = Path(folder) / f"m{FORMATS[format].suffix}"
                try:
                    reasons = [write_proven(prepared, format, path)[1].reason]
                except ExportError as error:
                    counts[format]["not exported"] += 1
                    print(f"{drawn.name} · {format} · not written: {error}", file=sys.stderr, flush=True)
                    continue
                reasons += [gate.examine(path, fresh=False).reason for gate in gates if path.exists()]
                wrong = [reason for reason in reasons if reason]
                counts[format] += Counter({"artifacts": 1, "examined": len(reasons), "rejected": len(wrong)})
                print(f"{drawn.name} · {format}: {wrong[0] if wrong else 'passed'}", file=sys.stderr, flush=True)
    print(f"torch {torch.__version__}, {count} random networks from number {first} on, {seeds} seeds of each:\n")
    print("| format | artifacts | examined | rejected | not exported |\n| --- | --- | --- | --- | --- |")
    for format, found in counts.items():
        columns = (found[name] for name in ("artifacts", "examined", "rejected", "not exported"))
        print(f"| {format} | " + " | ".join(map(str, columns)) + " |")
    return sum(found["rejected"] for found in counts.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--zoo", action="store_true", help="the models of the zoo, without the small modules")
    parser.add_argument("--networks", type=int, default=0, help="random networks, instead of the models that are there")
    parser.add_argument("--first", type=int, default=0, help="the number of the first of them")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if options.networks:
        sys.exit(bool(try_networks(options.networks, options.seeds, options.first)))

    wrong: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(1 if options.quick else options.seeds):
        with tempfile.TemporaryDirectory(prefix="deploypipe-") as folder:
            for name, prepared in honest(seed, Path(folder), options.zoo):
                for format in FORMATS:
                    path = Path(folder) / f"{name.split()[-1]}-{format}{FORMATS[format].suffix}"
                    reason = rejection(prepared, format, path)
                    wrong[name][format].append(bool(reason))
                    print(f"seed {seed} · {name} · {format}: {reason or 'passed'}", file=sys.stderr, flush=True)

    print(f"torch {torch.__version__}, rejected of honest artifacts:\n")
    print("| model | " + " | ".join(FORMATS) + " |\n| --- |" + " --- |" * len(FORMATS))
    for name, row in wrong.items():
        print(f"| {name} | " + " | ".join(f"{sum(row[format])} of {len(row[format])}" for format in FORMATS) + " |")
    tried = [alarm for row in wrong.values() for alarms in row.values() for alarm in alarms]
    print(f"\n{len(tried)} honest artifacts, {sum(tried)} rejected.")
    sys.exit(any(tried))


if __name__ == "__main__":
    main()
