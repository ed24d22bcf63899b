"""What the comparisons in this folder share: the machine, a file of results to go on from, medians and tables."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def machine() -> Row:
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": cores(), "python": platform.python_version()}


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begun(out: Path, schema: str, settings: Row) -> Row:
    """The document in `out`, to go on from, or a new one; ends the program where it has other settings."""
    if not out.is_file():
        return {"schema": schema, "settings": settings, "results": []}
    document: Row = json.loads(out.read_text())
    if document["settings"] != settings:
        different = sorted(name for name in settings if document["settings"].get(name) != settings[name])
        sys.exit(f"error: {out} was measured with another {', '.join(different)}. Name another file with --out.")
    return document


def spread(values: Sequence[float]) -> Row | None:
    """Median, smallest and largest; None of nothing."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


def cells(values: Iterable[object]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, values))} |"
