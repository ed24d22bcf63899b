"""Which functions are rewritten: none at first, then those that stop the trace, in the end all of them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Sequence

from torch import nn

from deploypipe.compiler.factory import is_rewritten
from deploypipe.errors import ExportError
from deploypipe.staging.failures import chain_of
from deploypipe.staging.size_limits import Limit, is_torchs
from deploypipe.torch_compat.guards import Caller, callers_of

Selection = frozenset[types.CodeType] | None
EVERYTHING: Selection = None
ATTEMPTS = 12
"""How often a trace is tried again with more functions rewritten, before all of them are."""


class Attempts:
    """What to rewrite next, from where the last attempt stopped."""

    def __init__(self, module: nn.Module) -> None:
        self.forwards = {
            inspect.unwrap(part.forward).__code__
            for part in module.modules()
            if hasattr(inspect.unwrap(part.forward), "__code__")
        }
        self.selection: Selection = frozenset()
        self.left = ATTEMPTS

    def stopped(self, error: ExportError) -> None:
        """The trace ended in an error: rewrite what led to it."""
        self._rewrite(map(callers_of, chain_of(error)))

    def limited(self, limits: Sequence[Limit]) -> None:
        """The trace went through, and holds for some sizes only: rewrite what asked about them."""
        self._rewrite(limit.stack for limit in limits)

    def _rewrite(self, stacks: Iterable[Sequence[Caller]]) -> None:
        held = self.selection or frozenset()
        found = {code for stack in stacks for code in self._asking(stack)}
        self.left -= 1
        self.selection = held | found if found - held and self.left else None

    def _asking(self, stack: Sequence[Caller]) -> list[types.CodeType]:
        """The author's functions on a stack, from the innermost forward down: that is what reaches the question. None
        where the innermost of them is rewritten already, and so rewriting does not help."""
        own = [frame for frame in stack if not is_torchs(frame.module)]
        if not own or is_rewritten(own[-1].code):
            return []
        start = max((i for i, frame in enumerate(own) if frame.code in self.forwards), default=0)
        return [frame.code for frame in own[start:] if not is_rewritten(frame.code)]

    @staticmethod
    def library_stops(error: ExportError) -> bool:
        """Whether rewriting failed in code that is not the author's own, or at torch's own checks, so that its reason
        would say little."""
        return "site-packages" in str(error) or "Constraints violated" in str(error)
