"""What the command line shows. Results go to standard output; progress, warnings and errors go to standard error."""

import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Document = Mapping[str, Any]
"""A verb's result, which `--json` prints."""

# Where nobody looks at a terminal there is no width to fit into, and a wrapped path is hard to copy.
# Paths, names and a server's words are shown as they are: "[/y]" is no markup, ":cat:" no cat.
out = Console(width=None if sys.stdout.isatty() else 110, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextmanager
def results_alone(*, results: bool = True, progress: bool = True) -> Iterator[None]:
    """Standard output is for results: what anything else prints, a user's own module too, goes to standard error.
    Inside, `results` and `progress` say which of the two are shown."""
    out.file, out.quiet, err.quiet = sys.stdout, not results, not progress
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        # `None` is whatever standard output is then.
        out.file, out.quiet, err.quiet = None, False, False  # type: ignore[assignment]


def warn(message: str) -> None:
    err.print(f"warning: {message}", style="yellow")


def note(message: str) -> None:
    err.print(message)


def error(message: str) -> None:
    err.print(f"error: {message}", style="red")


def next_commands(*commands: Sequence[str]) -> None:
    note("Next: " + "\n      ".join(shlex.join(["deploypipe", *command]) for command in commands))


def table(*columns: str, title: str | None = None) -> Table:
    """Cells that do not fit are continued below, never cut: a cut path or message is of no use."""
    made = Table(title=title)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def listing(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    made = table(*columns)
    for row in rows:
        made.add_row(*row)
    out.print(made)


def verdict(passed: bool) -> Text:
    return Text("passed", "green") if passed else Text("failed", "red")


def difference(value: float) -> str:
    return "not comparable" if math.isnan(value) else f"{value:.2e}"


def file_size(path: Path) -> str:
    return size(path.stat().st_size)


def size(count: float) -> str:
    """So many bytes, for people."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
