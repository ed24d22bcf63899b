"""The state of one run of rewritten code: capturing a program, or running in eager and noting branch outcomes."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

from deploypipe.compiler.sites import Site
from deploypipe.contract.sizes import Axis

Resolver = Callable[[FunctionType], FunctionType]
"""Gives what to run in place of a function that the author's code calls: its rewritten form, or the function itself."""


class DeliberateRaise(Exception):
    """The author's `raise`, met while staging: the path ends here in eager, too."""

    def __init__(self, error: object) -> None:
        super().__init__(f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error))
        self.error = error


@dataclass
class StagingContext:
    capturing: bool
    resolver: Resolver | None = None
    """Without one, functions run as their authors wrote them."""
    selection: frozenset[CodeType] | None = None
    """The code of the functions that are rewritten; None for all."""
    became: dict[Site, list[str]] = field(default_factory=lambda: defaultdict(list))
    outcomes: dict[Site, set[str]] = field(default_factory=lambda: defaultdict(set))
    rounds: dict[Site, int] = field(default_factory=lambda: defaultdict(int))
    """How often each loop ran in eager, at most."""
    bounded: dict[Site, int] = field(default_factory=dict)
    """The loops that got room for as many iterations as the user said, and for how many."""
    rewritten: dict[str, str] = field(default_factory=dict)
    """The functions that were rewritten, each with what was changed in it."""
    axes: dict[str, Axis] = field(default_factory=dict)
    """torch's symbols ("s77") for the dynamic axes of the inputs, each with what the author calls it."""
    written: dict[str, str] = field(default_factory=dict)
    """By name, where an attribute of a module was written last."""
    dropped: list[str] = field(default_factory=list)
    """A remark for each thing that the author's code does and the program does not."""
    alternatives: dict[Any, tuple[Any, Any]] = field(default_factory=dict)
    """Numbers that a branch gave, by their symbols: what each side has."""
    read_anew: dict[Any, Any] = field(default_factory=dict)
    """The symbols of numbers that a block reads anew: what they are around it."""
    conjunctions: dict[int, tuple[Any, tuple[Any, ...]]] = field(default_factory=dict)
    """What `and` gave, by its id, and its operands."""
    predicates: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    """The tensor that a branch was decided by, by its id, and the condition that it stands for."""
    negations: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    """What `not` gave, by its id, and of what."""
    flags: dict[int, tuple[Any, Any, Any]] = field(default_factory=dict)
    """What a branch gave that sets a flag, by its id: the branch's condition, and the flag where it is not taken."""
    comparisons: dict[int, tuple[Any, str, Any, Any]] = field(default_factory=dict)
    """What a comparison with a tensor gave, by its id, and what was compared."""
    created: dict[int, object] = field(default_factory=dict)
    """Objects made during this call, by their ids, kept alive."""
    owned: dict[int, object] = field(default_factory=dict)
    """Containers that outlive the call, by their ids, kept alive."""
    aliases: dict[int, tuple[Any, dict[int, Any]]] = field(default_factory=dict)
    """By storage: a tensor, and by their storages the tensors that are one with it in eager."""
    stale: dict[int, Any] = field(default_factory=dict)
    """By storage: tensors that eager has changed through another name, and the program could not."""
    tracer: Any = None
    dry: int = 0
    """How many dry runs are going on around the current point."""
    staged: int = 0
    """How many branches or loops are being staged around the current point."""
    symbols_outside: frozenset[Any] = frozenset()
    """The symbols that existed before the branch or loop that is being staged."""
    open_sites: list[Site | None] = field(default_factory=list)
    """The sites that are being staged, the innermost last."""

    def note(self, site: Site | None, form: str) -> None:
        """Remember what a site became."""
        if site is not None and form not in self.became[site]:
            self.became[site].append(form)

    def note_outcome(self, site: Site | None, outcome: str) -> None:
        """Remember how a site decided in eager."""
        if site is not None:
            self.outcomes[site].add(outcome)

    @contextlib.contextmanager
    def at(self, site: Site | None) -> Iterator[None]:
        """While a site is staged: what cannot be carried through it is reported there."""
        self.open_sites.append(site)
        try:
            yield
        finally:
            self.open_sites.pop()

    @property
    def where(self) -> str:
        known = [site for site in self.open_sites if site is not None]
        return known[-1].where if known else ""

    def made(self, value: Any) -> Any:
        self.created[id(value)] = value
        return value


_active: ContextVar[StagingContext | None] = ContextVar("_active", default=None)


def current() -> StagingContext:
    return _active.get() or StagingContext(capturing=False)


@contextlib.contextmanager
def active(context: StagingContext) -> Iterator[StagingContext]:
    token = _active.set(context)
    try:
        yield context
    finally:
        _active.reset(token)
