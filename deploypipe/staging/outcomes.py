"""Which branch outcomes inputs take: the rewritten code runs in eager, where its helpers run plain Python, watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.compiler.sites import AT_LEAST_ONCE, Site
from deploypipe.eager import deadline
from deploypipe.staging.context import StagingContext, active
from deploypipe.staging.copies import rewrite_forwards, working_copy
from deploypipe.staging.rewriting import rewritten
from deploypipe.staging.trace import StaticProgram
from deploypipe.staging.variations import Inputs, variations

Outcomes = Mapping[Site, frozenset[str]]
"""For each site how it decided: `true` or `false`, or for a loop `0`, `1` or `many` iterations."""

PATIENCE = 5.0
"""Seconds for one input that the search makes up: a loop of the model may have no end on it."""
ATTEMPTS = 60
"""Variations that the search tries at most."""

BRANCHES = frozenset({"true", "false"})
LOOPS = frozenset({"0", "1", "many"})
DYNAMIC = ("cond", "while_loop", "check")


def is_dynamic(site: Site) -> bool:
    """Whether a site decides by the input, so that probes have something to prove."""
    return any(form in site.became for form in DYNAMIC)


def possible_outcomes(site: Site) -> frozenset[str]:
    """The outcomes that probes should take. A failing assertion returns nothing, so only its passing counts."""
    if not is_dynamic(site):
        return frozenset()
    if site.kind == "assert":
        return frozenset({"true"})
    if site.kind not in ("while", "for"):
        return BRANCHES
    return LOOPS - {"0"} if AT_LEAST_ONCE in site.became else LOOPS


def record_outcomes(module: nn.Module, program: StaticProgram, probes: Sequence[Inputs]) -> Outcomes:
    """The outcomes that the probes take at each site of the program.

    Runs a copy of the module in eval mode. A probe on which the module fails counts for what it reached.
    """
    context = StagingContext(capturing=False, resolver=rewritten, selection=program.selection)
    watched = _watched(module)
    for probe in probes:
        _run(watched, probe, context)
    return {site: frozenset(context.outcomes.get(site, ())) for site in program.sites}


def keeps_bound(module: nn.Module, program: StaticProgram, inputs: Inputs) -> bool:
    """Whether eager runs no loop more often on these inputs than the user has said that it does."""
    if not program.bounded:
        return True
    context = StagingContext(capturing=False, resolver=rewritten, selection=program.selection)
    _run(_watched(module), inputs, context)
    return all(context.rounds[site] <= most for site, most in program.bounded.items())


def missing_outcomes(taken: Outcomes) -> dict[Site, frozenset[str]]:
    """The outcomes of dynamic sites that were not taken."""
    lacking = {site: possible_outcomes(site) - outcomes for site, outcomes in taken.items()}
    return {site: outcomes for site, outcomes in lacking.items() if outcomes}


def find_inputs(module: nn.Module, program: StaticProgram, example: Inputs, taken: Outcomes) -> list[Inputs]:
    """Variations of the example that take outcomes which `taken` lacks, and on which the module returns."""
    lacking = {site: set(outcomes) for site, outcomes in missing_outcomes(taken).items()}
    watched = _watched(module)
    found: list[Inputs] = []
    for number, candidate in enumerate(variations(program.program, example)):
        if not any(lacking.values()) or number >= ATTEMPTS:
            break
        context = StagingContext(capturing=False, resolver=rewritten, selection=program.selection)
        with deadline(PATIENCE):
            if not _run(watched, candidate, context):
                continue
        news = [site for site, outcomes in context.outcomes.items() if lacking.get(site, set()) & outcomes]
        for site in news:
            lacking[site] -= context.outcomes[site]
        if news:
            found.append(candidate)
    return found


def _watched(module: nn.Module) -> nn.Module:
    copy = working_copy(module)
    rewrite_forwards(copy)
    return copy


def _run(module: nn.Module, inputs: Inputs, context: StagingContext) -> bool:
    """Whether the module returns for these inputs; what it decides is noted in the context."""
    own: list[Any] = [t.clone() if isinstance(t, Tensor) else t for t in inputs]
    with torch.no_grad(), active(context):
        try:
            module(*own)
        except Exception:
            return False
    return True
