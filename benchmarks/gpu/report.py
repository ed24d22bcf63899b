"""What a check reports, and the table of all of them. Standard library only."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

PASSED, PARTLY, FAILED, NOT_RUN = OUTCOMES = ("passed", "partly", "failed", "not run")
"""`partly`: the check ran, and held, in a smaller form than it should; its row says which."""
WIDTH = 80


class NotRun(Exception):
    """A check cannot run here; the message says which package, data or hardware is missing."""


class Failed(Exception):
    """A check ran and did not hold; the message says how."""


@dataclass(frozen=True)
class Row:
    check: str
    outcome: str
    """One of OUTCOMES."""
    found: str


def table(rows: Sequence[Row]) -> str:
    """The rows as text of at most 80 columns, the last column wrapped."""
    head = Row("check", "outcome", "found")
    first, second = (max(len(getattr(row, name)) for row in [head, *rows]) for name in ("check", "outcome"))
    rest = WIDTH - first - second - 4
    lines = [
        f"{head.check:<{first}}  {head.outcome:<{second}}  {head.found}",
        f"{'-' * first}  {'-' * second}  {'-' * rest}",
    ]
    for row in rows:
        found = textwrap.wrap(row.found, rest, break_on_hyphens=False) or [""]
        lines.append(f"{row.check:<{first}}  {row.outcome:<{second}}  {found[0]}")
        lines += [" " * (first + second + 4) + line for line in found[1:]]
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """How many rows have each outcome: "3 passed, 1 failed"."""
    counts = {outcome: sum(row.outcome == outcome for row in rows) for outcome in OUTCOMES}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
