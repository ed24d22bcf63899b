"""Which paths inputs take: the rewritten code runs in eager, where its helpers execute plain Python, and is watched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.compiler.sites import AT_LEAST_ONCE, Site
from deploypipe.eager import deadline
from deploypipe.staging.context import Context, active
from deploypipe.staging.copies import rewrite_forwards, working_copy
from deploypipe.staging.trace import StaticProgram

Inputs = tuple[Any, ...]
Outcomes = dict[Site, frozenset[str]]

PATIENCE = 5.0
"""Seconds for one input that the search makes up: a loop of the model may have no end on it."""

BRANCHES = frozenset({"true", "false"})
LOOPS = frozenset({"0", "1", "many"})
DYNAMIC = ("cond", "while_loop", "check")


def is_dynamic(site: Site) -> bool:
    """Whether a site's path depends on the input, so that probes have something to prove."""
    return any(form in site.became for form in DYNAMIC)


def possible_outcomes(site: Site) -> frozenset[str]:
    """The paths of a site that probes should take. A failing assertion returns nothing, so only its passing counts."""
    if not is_dynamic(site):
        return frozenset()
    if site.kind == "assert":
        return frozenset({"true"})
    if site.kind not in ("while", "for"):
        return BRANCHES
    return LOOPS - {"0"} if AT_LEAST_ONCE in site.became else LOOPS


def record_outcomes(module: nn.Module, sites: StaticProgram | Sequence[Site], probes: Sequence[Inputs]) -> Outcomes:
    """For each site, the paths that the probes take: `true`/`false`, or for a loop `0`, `1`, `many`.

    Runs a copy of the module in eval mode. A probe on which the module fails counts for what it reached.
    """
    wanted = sites.sites if isinstance(sites, StaticProgram) else tuple(sites)
    context = Context(capturing=False)
    copy = working_copy(module)
    rewrite_forwards(copy)
    for probe in probes:
        with torch.no_grad(), active(context):
            try:
                copy(*(t.clone() if isinstance(t, Tensor) else t for t in probe))
            except Exception:
                continue
    return {site: frozenset(context.taken.get(site.number, ())) for site in wanted}


def missing_outcomes(coverage: Mapping[Site, frozenset[str]]) -> dict[Site, frozenset[str]]:
    """The paths of dynamic sites that were not taken."""
    lacking = {site: possible_outcomes(site) - taken for site, taken in coverage.items()}
    return {site: paths for site, paths in lacking.items() if paths}


def find_inputs(
    module: nn.Module,
    capture: StaticProgram,
    example_inputs: Inputs,
    coverage: Mapping[Site, frozenset[str]],
    *,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    attempts: int = 60,
) -> list[Inputs]:
    """Inputs that take paths which `coverage` lacks, among variations of the example.

    Tries scaled, negated, shifted, zero and extreme values, and other sizes on the dynamic axes of the program. Only
    variations on which the module returns are kept.
    """
    lacking = {site.number: set(paths) for site, paths in missing_outcomes(coverage).items()}
    copy = working_copy(module)
    rewrite_forwards(copy)
    found: list[Inputs] = []
    for number, candidate in enumerate(_variations(example_inputs, _axes(capture))):
        if not any(lacking.values()) or number >= attempts:
            break
        context = Context(capturing=False)
        with torch.no_grad(), active(context), deadline(PATIENCE):
            try:
                copy(*(t.clone() if isinstance(t, Tensor) else t for t in candidate))
            except Exception:
                continue
        news = [site for site, paths in context.taken.items() if lacking.get(site, set()) & paths]
        for site in news:
            lacking[site] -= context.taken[site]
        if news:
            found.append(candidate)
    return found


def _axes(capture: StaticProgram) -> list[dict[int, str]]:
    """For each input of the program, its symbolic axes."""
    placeholders = {n.name: n for n in capture.program.graph.nodes if n.op == "placeholder"}
    axes: list[dict[int, str]] = []
    for name in capture.program.graph_signature.user_inputs:
        value = placeholders[str(name)].meta.get("val") if str(name) in placeholders else None
        shape = value.shape if isinstance(value, Tensor) else ()
        axes.append({axis: str(size) for axis, size in enumerate(shape) if isinstance(size, torch.SymInt)})
    return axes


def _variations(example: Inputs, axes: list[dict[int, str]]) -> Iterator[Inputs]:
    """The example with all inputs changed alike, then one input at a time, then at other sizes."""
    yield example
    for change in CHANGES:
        yield tuple(change(t) if isinstance(t, Tensor) else t for t in example)
    if len(example) > 1:
        for position in range(len(example)):
            for change in CHANGES:
                yield tuple(change(t) if i == position and isinstance(t, Tensor) else t for i, t in enumerate(example))
    symbols = sorted({symbol for part in axes for symbol in part.values()})
    for symbol in symbols:  # a loop over an axis runs no time, or once
        for size in (0, 1):
            yield tuple(_resize(t, part, {symbol: size}) for t, part in zip(example, axes, strict=False))
    for sizes in (dict.fromkeys(symbols, n) for n in (1, 2, 3, 9, 17)):
        resized = tuple(
            _resize(t, part, sizes) for t, part in zip(example, [*axes, *[{}] * len(example)], strict=False)
        )
        yield resized
        for change in CHANGES[:4]:
            yield tuple(change(t) if isinstance(t, Tensor) else t for t in resized)


def _resize(value: Any, axes: Mapping[int, str], sizes: Mapping[str, int]) -> Any:
    for axis, symbol in axes.items():
        if symbol in sizes and value.shape[axis]:
            value = value.index_select(axis, torch.arange(sizes[symbol]) % value.shape[axis])
    return value


def _scaled(factor: float) -> Any:
    def change(value: Tensor) -> Tensor:
        if value.dtype == torch.bool:
            return value if factor > 0 else ~value
        if not value.is_floating_point():
            # Whole numbers are counts and indices: larger ones are likely out of range.
            return value if factor < 0 else (value.double() * min(factor, 4)).to(value.dtype)
        return value * factor

    return change


def _shifted(by: float) -> Any:
    def change(value: Tensor) -> Tensor:
        return value + by if value.is_floating_point() else value

    return change


def _filled(number: int) -> Any:
    def change(value: Tensor) -> Tensor:
        return torch.full_like(value, bool(number) if value.dtype == torch.bool else number)

    return change


CHANGES = [
    _scaled(-1), _filled(0), _scaled(100), _scaled(0.01), _filled(1), _shifted(3), _shifted(-3), _filled(2),
    _scaled(-100), _shifted(50), _shifted(-50), _filled(5), _scaled(1e4), _filled(-1),
]  # fmt: skip
