"""The places in the author's source where Python decides by a value."""

from dataclasses import dataclass, field

AT_LEAST_ONCE = "at least once"
"""What a loop over a constant sequence became, besides its form: its first iteration always runs."""


@dataclass(frozen=True)
class Site:
    """One place where Python decides. `became` lists what a capture made of it, e.g. `cond`, `while_loop`, `static`."""

    file: str
    line: int
    function: str
    kind: str
    became: str = field(default="", compare=False)
    number: int = -1
    """Its place among those of the function that was rewritten as a whole."""

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"
