"""`deploypipe train` as one process and as several that torchrun starts on this machine's CPU (gloo): time, images per
second, and how far the losses are apart.

    python benchmarks/training/scaling.py --data-dir DIR [--processes 1 2 4] [--set KEY=VALUE …]

The global batch is the same for all. Each process has `cores / processes` threads, at least one. Processes that share
one machine's cores cannot be faster than one that has them all: this shows what their talking costs. Run it on a
machine that does nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path, help="default: where deploypipe looks")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as deploypipe train takes it")
    asked = parser.parse_args()
    options = ["--data", asked.data, "--device", "cpu", *(word for each in asked.set for word in ("--set", each))]
    if asked.data_dir:
        options += ["--data-dir", str(asked.data_dir.resolve())]
    print(f"{CORES} cores")
    print("| processes | threads each | seconds of training | process | images/s | test accuracy | loss by epoch |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for processes in asked.processes:
        seconds, run = train(processes, options)
        losses = ", ".join(f"{row['loss']:.5f}" for row in run["epochs"])
        cells = [processes, run["threads"], f"{run['seconds']:.1f}", f"{seconds:.1f}", f"{run['images_per_second']:,}",
                 f"{run['metrics']['accuracy']:.2%}", losses]  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def train(processes: int, options: list[str]) -> tuple[float, dict[str, Any]]:
    """Seconds from start to end, and the run's document."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    argv = [sys.executable, *(launcher if processes > 1 else []), "-m", "deploypipe", "train", *options, "--json"]
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(max(CORES // processes, 1))
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="deploypipe-") as scratch:
        begun = time.perf_counter()
        done = subprocess.run(
            [*argv, "--out", f"{scratch}/run"], env=environment, capture_output=True, text=True, cwd=scratch
        )
        seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"error: {' '.join(argv)} ended with {done.returncode}:\n{done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return seconds, document


if __name__ == "__main__":
    main()
