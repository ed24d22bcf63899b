"""The artifact on its task: every test image, the classes it gives, and the classes that flip."""

import torch
from torch import Tensor

from deploypipe.data import Split
from deploypipe.formats.runner import Runner
from deploypipe.parity.comparison import compare_outputs, returned_by
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import Reference
from deploypipe.parity.standards import Standard
from deploypipe.parity.verdict import Finding, Outcome

FAMILY = "all test images"
BATCH = 500  # as JSON numbers it still fits into one request
FLIP_FACTOR = 2.0
"""Two logits that each move by the largest difference move by twice that against each other, and no further."""


def test_set_probes(test: Split) -> list[Probe]:
    """Every test image once, in batches."""
    return [Probe(FAMILY, (inputs,), in_float64=False) for inputs in torch.split(test.inputs, BATCH)]


def check_task(
    reference: Reference, runner: Runner, probes: list[Probe], test: Split, standard: Standard
) -> tuple[list[Outcome], list[Finding]]:
    """Every value and every class on `probes`, those of `test_set_probes`; and what `standard` asks of the logits.
    There is no Finding where outputs cannot be compared at all, which the outcomes say."""
    outcomes: list[Outcome] = []
    eager, artifact = [], []
    for probe in probes:
        answer = reference.answer(probe)
        returned = returned_by(runner, probe, answer.seconds)
        outcomes += compare_outputs(answer, returned, probe, runner, standard)
        if returned.problem or returned.leaves[0].shape != answer.leaves[0].shape:
            return outcomes, []
        eager.append(answer.leaves[0])
        artifact.append(returned.leaves[0])
    logits = torch.cat(eager), torch.cat(artifact)
    return outcomes, [
        compare_classes(*logits, test.targets),
        *standard.check_logits(*logits, test.targets),
    ]


def compare_classes(eager: Tensor, artifact: Tensor, targets: Tensor) -> Finding:
    """Logits `[n, classes]` of both. Fails where a class flips though eager was sure of it: its margin, between the
    two largest logits, was more than `FLIP_FACTOR` times the largest difference that rounding made anywhere else."""
    mine, theirs = eager.argmax(1), artifact.argmax(1)
    flipped = mine != theirs
    top = eager.double().topk(2, dim=1).values
    margin = top[:, 0] - top[:, 1]
    difference = (artifact.double() - eager.double()).abs().amax(1)
    # Of those that did not flip: what flips is not to excuse itself.
    usual = difference[~flipped & difference.isfinite()]
    sure = flipped & (margin > FLIP_FACTOR * (usual.max().item() if len(usual) else 0.0))
    accuracy, own = ((classes == targets).double().mean().item() for classes in (theirs, mine))
    detail = (
        f"{int((~flipped).sum()):,} of {len(targets):,} classes are eager's; accuracy {accuracy:.2%}, eager {own:.2%}"
    )
    if flipped.any():
        detail += f"; {int(flipped.sum())} flipped, {int(sure.sum())} of them though eager was sure"
    if sure.any():
        worst = int(torch.where(sure, margin, -1.0).argmax())
        detail += (
            f" (test image {worst}: class {int(theirs[worst])}, eager {int(mine[worst])} "
            f"with a margin of {margin[worst].item():.3g})"
        )
    return Finding("classes", not sure.any(), detail)
