"""The control-flow sites of the author's source, and the numbers by which rewritten code refers to them."""

import ast
from dataclasses import dataclass

AT_LEAST_ONCE = "at least once"  # what a loop over a constant sequence became, besides its form


@dataclass(frozen=True)
class Site:
    """One place where Python decides. `became` lists what capture made of it, e.g. `cond`, `while_loop`, `static`."""

    file: str
    line: int
    function: str
    kind: str
    became: str = ""
    number: int = -1

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


KNOWN: list[Site] = []


def number_of(node: ast.AST, kind: str, file: str, function: str) -> int:
    """Register a site of a function that is being rewritten."""
    site = Site(file, getattr(node, "lineno", 0), function, kind, number=len(KNOWN))
    KNOWN.append(site)
    return site.number
