"""What a command costs before it does anything: its processor time against that of the libraries it is written with.

    python benchmarks/startup.py                 a table of the commands that only look, ask or explain
    python benchmarks/startup.py --port 8080     the same where a server runs on that port; `stop` is left out

The commands and the yardstick run in turn, so that a machine whose speed drifts is unfair to none; the first round is
not counted. Processor time is user and system time of the finished process, as the operating system accounts for it.
"""

import argparse
import resource
import statistics
import subprocess
import sys

YARDSTICK = "import typer, rich.console"
TARGET = 2.0
"""Times the yardstick, at most, for a command that starts no server and asks none."""


def cpu_seconds(*argv: str) -> float:
    """User and system time of one run of `python argv…`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def commands(port: int | None) -> list[list[str]]:
    if port is None:
        # Nobody can have started a server there.
        return [["--help"], ["--version"], *([verb, "--port", "1"] for verb in ("status", "ready", "stop"))]
    return [["--help"], *([verb, "--port", str(port)] for verb in ("status", "ready"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="counted runs of each [default: 9]")
    parser.add_argument("--port", type=int, help="of a server that runs")
    asked = parser.parse_args()
    measured = {"yardstick": ["-c", YARDSTICK]}
    measured |= {f"deploypipe {' '.join(argv)}": ["-m", "deploypipe", *argv] for argv in commands(asked.port)}
    rounds = [{name: cpu_seconds(*argv) for name, argv in measured.items()} for _ in range(asked.runs + 1)][1:]
    print(f"python -c {YARDSTICK!r}: {statistics.median(row['yardstick'] for row in rounds):.3f} s of processor time\n")
    print(f"| command | median seconds | times the yardstick (median, least to most) | target {TARGET:g} |")
    print("| --- | --- | --- | --- |")
    for name in list(measured)[1:]:
        ratios = [row[name] / row["yardstick"] for row in rounds]
        kept = "kept" if statistics.median(ratios) <= TARGET else "missed"
        print(f"| `{name}` | {statistics.median(row[name] for row in rounds):.3f} | "
              f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {kept} |")  # fmt: skip


if __name__ == "__main__":
    main()
