"""The state of one run of rewritten code: capturing a graph, or running in eager and recording paths."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from deploypipe.compiler.sites import KNOWN


class DeliberateRaise(Exception):
    """The author's `raise`, met while staging: the path ends here in eager, too."""

    def __init__(self, error: object) -> None:
        super().__init__(f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error))
        self.error = error


@dataclass
class Context:
    capturing: bool
    became: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    taken: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    rewritten: dict[str, str] = field(default_factory=dict)
    created: dict[int, object] = field(default_factory=dict)  # objects made during this call, kept alive
    dry: int = 0
    staged: int = 0  # how many branches or loops are being staged around the current point
    symbols_outside: frozenset[Any] = frozenset()  # those that existed before the branch or loop being staged
    aliases: dict[int, tuple[Any, list[Any]]] = field(default_factory=dict)  # by storage, kept alive: `aliases.py`
    stale: dict[int, Any] = field(default_factory=dict)
    tracer: Any = None
    owned: dict[int, object] = field(default_factory=dict)  # containers that outlive the call, kept alive
    open_sites: list[int] = field(default_factory=list)  # the sites being staged, the innermost last

    def note(self, site: int, form: str) -> None:
        """Remember what a site became."""
        if site >= 0 and form not in self.became[site]:
            self.became[site].append(form)

    @contextlib.contextmanager
    def at(self, site: int) -> Iterator[None]:
        """While a site is staged: what cannot be carried through it is reported there."""
        self.open_sites.append(site)
        try:
            yield
        finally:
            self.open_sites.pop()

    @property
    def where(self) -> str:
        known = [site for site in self.open_sites if site >= 0]
        return KNOWN[known[-1]].where if known else ""

    def take(self, site: int, path: str) -> None:
        """Remember which way a site went in eager."""
        if site >= 0:
            self.taken[site].add(path)

    def made(self, value: Any) -> Any:
        self.created[id(value)] = value
        return value


@contextlib.contextmanager
def module_stack_kept() -> Iterator[None]:
    """The tracer notes which submodule it is in, and forgets to leave it when an exception passes."""
    tracer = current().tracer
    held = list(tracer.module_stack.items()) if tracer is not None else []
    try:
        yield
    except BaseException:
        if tracer is not None:
            tracer.module_stack.clear()
            tracer.module_stack.update(held)
        raise


_stack: list[Context] = []


def current() -> Context:
    if not _stack:
        return Context(capturing=False)
    return _stack[-1]


@contextlib.contextmanager
def active(context: Context) -> Iterator[Context]:
    _stack.append(context)
    try:
        yield context
    finally:
        _stack.pop()
