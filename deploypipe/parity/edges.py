"""Sizes at which artifacts turn wrong: two symbols of one size, and the edges of what is allowed."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deploypipe.contract.sizes import Axis, broken_limits

PAIRS = 10
"""Pairs of symbols that are given one size, at most; all at once come on top."""
SMALL = (3, 2, 5, 4, 6, 7, 8, 1, 16, 32)
"""Sizes that two symbols are tried to share: odd ones first, and none alone, for a size of 1 broadcasts."""
SEARCHED = 64
"""An edge is looked for among sizes up to this, and beside every number that a limit names."""
LARGEST = 2048
"""Larger edges are not tried: attention over one would take gigabytes."""

Sizes = Mapping[str, int]
"""A value for each symbol."""


@dataclass(frozen=True)
class Edge:
    """Where the values of one symbol, the others staying, begin to break a limit."""

    limit: str
    """What refuses the values outside: this limit, or another that they break as well."""
    on: Sizes
    inside: Sizes | None
    """One step further in; None where the limit leaves nothing there."""
    outside: Sizes


def equal_sizes(axes: Sequence[Axis], own: Sizes, limits: Sequence[str]) -> list[Sizes]:
    """Values at which two axes of different symbols have one size, for each two of them, and for all at once; the
    other symbols as in the example."""
    by_symbol = {axis.symbol: axis for axis in axes}
    groups: list[tuple[str, ...]] = list(itertools.islice(itertools.combinations(sorted(by_symbol), 2), PAIRS))
    if len(by_symbol) > 2:
        groups.append(tuple(sorted(by_symbol)))
    found: list[Sizes] = []
    for group in groups:
        multiples = {symbol: by_symbol[symbol].multiple for symbol in group}
        common = math.lcm(*multiples.values())
        for size in SMALL:
            values = {**own, **{symbol: size * common // multiple for symbol, multiple in multiples.items()}}
            if not broken_limits(limits, values):
                found.append(values)
                break
    return found


def edges_of(limits: Sequence[str], own: Sizes) -> list[Edge]:
    """The edges of each limit: for every symbol that it names, the first one below and the first one above."""
    found = []
    for limit in limits:
        for symbol in own:
            if re.search(rf"\b{symbol}\b", limit):
                found += [edge for step in (1, -1) for edge in _edge(limit, limits, own, symbol, step)]
    return found


def _edge(limit: str, limits: Sequence[str], own: Sizes, symbol: str, step: int) -> Iterator[Edge]:
    def at(value: int) -> dict[str, int]:
        return {**own, symbol: value}

    numbers = [*map(int, re.findall(r"\d+", limit)), *own.values()]
    beside = {number + away for number in numbers for away in (-1, 0, 1)}
    allowed = [v for v in sorted({*range(1, SEARCHED), *beside}) if v > 0 and not broken_limits(limits, at(v))]
    for value in allowed:
        broken = broken_limits(limits, at(value + step))
        if limit in broken:
            further = [v for v in allowed if (value - v) * step > 0]
            inside = min(further, key=lambda v: abs(v - value), default=None)
            yield Edge(broken[0], at(value), None if inside is None else at(inside), at(value + step))
            return


def is_large(sizes: Sizes) -> bool:
    return max(sizes.values(), default=0) > LARGEST
