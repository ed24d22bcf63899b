"""What is left of a trace's guards: those that every size keeps are dropped, the rest are limits of the program.

One kind of guard is left to the gate, which compares at sizes 1 and 2 and at sizes that agree: where torch itself, not
the author's code, noted that two sizes differ, or that one is not 0 or 1. Its kernels ask that to choose a memory
layout or to skip work, and compute the same values either way.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deploypipe.contract.sizes import Axis, broken_limits
from deploypipe.torch_compat.guards import Caller, Guard
from deploypipe.torch_compat.symbols import rename_symbols

PINNED = re.compile(r"\w+ == \d+")
NOT_ONE = re.compile(r"(\w+) (?:> 1|!= 1|>= 2)")
TRIED = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 77, 100, 127, 128, 129, 197, 224,
         255, 256, 257, 384, 500, 511, 512, 513, 768, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 4097, 8191, 16384,
         65537, 2**20 + 1)  # fmt: skip
"""Values of a symbol on which a guard is evaluated: small ones, and those around the limits that people choose."""
FEW = (2, 3, 5, 8, 16, 17, 64, 257, 1025)
"""Values of each symbol of a guard of several."""
DEGENERATE = (0, 1)
"""Sizes at which torch's own kernels choose another layout and compute the same."""
SEARCHED = 4098
"""Sizes up to which the limit of a guard is searched for."""


@dataclass(frozen=True)
class Limit:
    """A guard that some sizes break, in the author's symbols."""

    text: str
    """As `contract.sizes` reads it."""
    asked_by: Caller | None
    """The innermost function that is not torch's; None where there is none."""
    torchs_own: bool
    """Whether torch itself asked on the function's behalf (an operator's demand), not the function."""
    stack: tuple[Caller, ...]

    @property
    def excludes_one(self) -> str:
        """The symbol of which it excludes the size 1 and no larger one; "" where it is another limit."""
        match = NOT_ONE.fullmatch(self.text)
        return match[1] if match else ""

    @property
    def pins(self) -> bool:
        """Whether it leaves one size."""
        return bool(PINNED.fullmatch(self.text))

    @property
    def where(self) -> str:
        """`file:line` of the function that asked, "" where there is none."""
        return f"{self.asked_by.code.co_filename}:{self.asked_by.line}" if self.asked_by else ""


def limits_of(guards: Iterable[Guard], axes: Mapping[str, Axis]) -> list[Limit]:
    """The guards that sizes of the dynamic axes break, each once. `axes`: torch's symbol → what the author calls it."""
    found: dict[str, Limit] = {}
    distinct = {str(guard): guard for guard in reversed(list(guards))}.values()
    # Those of one symbol come first: what they leave is all that those of several must hold for.
    for guard in sorted(distinct, key=lambda guard: len(guard.symbols)):
        if not guard.symbols or any(symbol not in axes for symbol in guard.symbols):
            continue  # about numbers that the program computes: it checks those itself
        outer = [frame for frame in guard.stack if not is_torchs(frame.module)]
        own = bool(guard.stack) and is_torchs(guard.stack[-1].module)
        if own and guard.excludes_a_point:
            continue
        if _implied(guard, axes, list(found), degenerate=not own):
            continue
        text = _text(guard, axes)
        found.setdefault(text, Limit(text, outer[-1] if outer else None, own, guard.stack))
    return [limit for limit in found.values() if not _weaker(limit.text, list(found))]


BOUND = re.compile(r"(\w+) ([<>])= (\d+)")


def _weaker(text: str, others: Sequence[str]) -> bool:
    """Whether another bound of the same symbol says more."""
    match = BOUND.fullmatch(text)
    if match is None:
        return False
    symbol, side, own = match[1], match[2], int(match[3])
    bounds = [int(m[3]) for m in map(BOUND.fullmatch, others) if m and m[1] == symbol and m[2] == side]
    return own != (max(bounds) if side == ">" else min(bounds))


def is_torchs(module: str) -> bool:
    return module.partition(".")[0] in ("torch", "deploypipe", "contextlib", "functools", "")


def _values(axis: Axis, candidates: Sequence[int]) -> list[int]:
    low, high = axis.smallest or 0, axis.largest
    inside = {c for c in candidates if c >= low and (high is None or c <= high)}
    edges = {low, low + 1} & set(range(low, (high if high is not None else low + 1) + 1))
    return sorted(inside | (edges if axis.smallest is not None else set()) | ({high} if high is not None else set()))


def _implied(guard: Guard, axes: Mapping[str, Axis], limits: Sequence[str], *, degenerate: bool) -> bool:
    """Whether it holds for all sizes that the limits leave, as far as trying many of them tells. One symbol of the
    author's may be several of torch's: they have one size."""
    names = list(dict.fromkeys(axes[symbol].symbol for symbol in guard.symbols))
    by_name = {axes[symbol].symbol: axes[symbol] for symbol in guard.symbols}
    candidates = (*DEGENERATE, *(TRIED if len(names) == 1 else FEW))
    choices = []
    for name in names:
        values = _values(by_name[name], candidates)
        choices.append(values if degenerate else [v for v in values if v * by_name[name].multiple > 1])
    tried = (dict(zip(names, values, strict=True)) for values in itertools.product(*choices))
    return all(guard.holds(_sizes(guard, axes, values)) for values in tried if not broken_limits(limits, values))


def _sizes(guard: Guard, axes: Mapping[str, Axis], values: Mapping[str, int]) -> dict[str, int]:
    return {symbol: values[axes[symbol].symbol] * axes[symbol].multiple for symbol in guard.symbols}


def _text(guard: Guard, axes: Mapping[str, Axis]) -> str:
    """The guard in the author's symbols; of one symbol, as the range or the multiple that it comes down to."""
    if len({axes[symbol].symbol for symbol in guard.symbols}) == 1:
        axis = axes[guard.symbols[0]]
        holding = [value for value in range(SEARCHED) if guard.holds(_sizes(guard, axes, {axis.symbol: value}))]
        simple = _range_or_multiple(axis.symbol, [value for value in holding if value > 1])
        if simple:
            return simple
    return rename_symbols(str(guard), {symbol: axes[symbol].shown for symbol in guard.symbols})


def _range_or_multiple(symbol: str, holding: Sequence[int]) -> str:
    """What `holding`, the sizes from 2 up at which a guard holds, comes down to; "" where it is neither."""
    if not holding:
        return ""
    first, last, count = holding[0], holding[-1], len(holding)
    if count == 1:
        return f"{symbol} == {first}"
    if last - first + 1 == count:
        low = "" if first == 2 else f"{symbol} >= {first}"
        high = "" if last == SEARCHED - 1 else f"{symbol} <= {last}"
        return " and ".join(part for part in (low, high) if part)
    step = holding[1] - holding[0]
    if all(b - a == step for a, b in itertools.pairwise(holding)):
        return f"{symbol} % {step} == {first % step}"
    return ""
