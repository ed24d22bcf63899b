"""Every check that a GPU matters for, in one table: `make gpu`, or `python benchmarks/gpu`.

It runs from the checkout alone, on a machine with no more than torch and numpy too: what needs other packages, data or
hardware says so in its row. The exit code is 1 where a check failed, else 0.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from checks import CHECKS, PROJECT, Asked, Check
from report import FAILED, NOT_RUN, Row, summary, table

GRACE = 60.0
"""Seconds that a check which is ended has to stop what it started."""


def main() -> None:
    asked, names, as_json, in_process = _arguments()
    chosen = [check for check in CHECKS if check.name in names]
    if in_process:
        signal.signal(signal.SIGTERM, _terminated)
        for check in chosen:
            print(json.dumps(asdict(check.run(asked))), flush=True)
        return
    machine = _machine()
    rows = []
    for number, check in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {check.title} …", file=sys.stderr, flush=True)
        rows.append(_lacking(check, asked, machine) or _run(check, asked))
    if as_json:
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        print(_heading(machine), table(rows), summary(rows), sep="\n\n")
    sys.exit(any(row.outcome == FAILED for row in rows))


def _arguments() -> tuple[Asked, set[str], bool, bool]:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    names = [check.name for check in CHECKS]
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda",
                        help="cpu tries the checks themselves where there is no GPU")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="little work: the code is tried, no figure means anything")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CHECK", help=", ".join(names))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    return Asked(given.device, given.quick), set(given.only), given.json, given.in_process


def _machine() -> dict[str, Any]:
    """What this interpreter has, found in a process of its own: `gpus` is empty without torch."""
    script = (
        "import json, torch\n"
        "gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]\n"
        "print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda, 'gpus': gpus}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    found: dict[str, Any] = {"python": platform.python_version(), "torch": None, "cuda": None, "gpus": []}
    try:
        found |= json.loads(done.stdout)
    except ValueError:
        found["problem"] = (done.stderr.strip().splitlines() or ["torch cannot be imported"])[-1]
    return found


def _heading(machine: dict[str, Any]) -> str:
    torch = f"torch {machine['torch']}" if machine["torch"] else "no torch"
    cuda = f"CUDA {machine['cuda']}" if machine["cuda"] else "no CUDA"
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return f"Python {machine['python']}, {torch}, {cuda}; {gpus}"


def _lacking(check: Check, asked: Asked, machine: dict[str, Any]) -> Row | None:
    """The row of a check that this machine cannot run at all."""
    gpus = len(machine["gpus"])
    reason = ""
    if machine["torch"] is None:
        reason = machine["problem"]
    elif asked.device == "cuda" and not gpus:
        reason = "no CUDA device"
    elif asked.device == "cuda" and gpus < check.devices:
        reason = f"NCCL needs {check.devices} CUDA devices, and there is one"
    return Row(check.title, NOT_RUN, reason) if reason else None


def _run(check: Check, asked: Asked) -> Row:
    """The check in a process of its own, with the checkout on its path."""
    paths = filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")])
    argv = [sys.executable, str(Path(__file__).parent), "--in-process", "--only", check.name, "--device", asked.device]
    process = subprocess.Popen(
        [*argv, *(["--quick"] if asked.quick else [])],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(timeout=check.seconds)
    except subprocess.TimeoutExpired:
        return Row(check.title, FAILED, f"it was not done after {check.seconds} s")
    finally:
        _end(process)
    try:
        return Row(**json.loads(said.strip().splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        return Row(check.title, FAILED, f"its process ended with {process.returncode}: {last}")


def _end(process: "subprocess.Popen[str]") -> None:
    """End the check's process, which then stops what it started; after a while, whatever is left of its session."""
    if process.poll() is None:
        process.terminate()
        try:
            process.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


if __name__ == "__main__":
    main()
