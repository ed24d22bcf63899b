"""The checks of an artifact of lower precision: it does not return what eager returns, and must do its task as well.

Shapes, dtypes and where values are finite stay eager's. On the test set it may lose `MOST_LOST` of the accuracy. And
what it returns must not depend on how it is run: threads, optimisation, process, neighbours in the batch.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deploypipe.contract.structure import by_name
from deploypipe.eager import flat_tensors
from deploypipe.formats.runner import Runner
from deploypipe.parity.budget import Budget
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import EagerOutputs, Reference
from deploypipe.parity.tolerances import Tolerance
from deploypipe.parity.verdict import Finding

MOST_LOST = 0.001
"""Of the accuracy on the test set: 0.1 points; of fewer than 1,000 images one image, which is the least there is."""
FURTHEST = 0.25
"""Of the largest logit that eager gives: how far a logit may be from eager's on the test set. Elsewhere activations may
leave the range that was measured for them, and nothing is known of how far."""
SHARE = 0.05
"""Of the largest output: how far an artifact may be from itself under other settings of the runtime. Other kernels
round an activation differently: without onnxruntime's optimisations `lean-cnn` moves by 0.004 of it."""
ROWS = 16


def allowed_from_itself(outputs: Sequence[Tensor]) -> Tolerance:
    """How far an artifact of lower precision may be from `outputs`, its own."""
    # NaN would allow everything.
    return Tolerance(SHARE * max(output.nan_to_num(0, 0, 0).abs().max().item() for output in outputs), 0.0)


class Itself(Reference):
    """An artifact's own answers, to hold it to under other settings."""

    def __init__(self, module: nn.Module, runner: Runner, budget: Budget) -> None:
        super().__init__(module, budget)
        self._runner = runner

    def _ask(self, probe: Probe) -> EagerOutputs:
        leaves, structure = flat_tensors(by_name(self._runner.answer(*copy.deepcopy(probe.inputs))))
        return EagerOutputs(tuple(leaves), structure, None)


def check_accuracy(eager: Tensor, artifact: Tensor, targets: Tensor, precision: str) -> Finding:
    """Logits `[n, classes]` of both on the test set."""
    own, found = ((logits.argmax(1) == targets).double().mean().item() for logits in (eager, artifact))
    lost, allowed = own - found, max(MOST_LOST, 1 / len(targets))
    far, most = (artifact.double() - eager.double()).abs().max().item(), FURTHEST * eager.abs().max().item()
    agreeing = (eager.argmax(1) == artifact.argmax(1)).double().mean().item()
    detail = (
        f"{precision} {found:.2%}, eager {own:.2%} on {len(targets):,} test images: "
        f"{100 * lost:.2f} points lost, {100 * allowed:.2g} allowed; {agreeing:.2%} of the classes are eager's, "
        f"logits up to {far:.2g} away, {most:.2g} allowed"
    )
    # A hundredth of an image, so that a float's last bit decides nothing.
    return Finding("accuracy", lost <= allowed + 0.01 / len(targets) and far <= most, detail)


def check_rows(runner: Runner, probes: Sequence[Probe]) -> Finding:
    """What is returned for a row must not depend on its neighbours, nor on how many they are: of each probe up to
    `ROWS` rows, alone and in it."""
    furthest, most, count = 0.0, math.inf, 0
    for probe in probes:
        rows = torch.linspace(0, probe.rows - 1, min(ROWS, probe.rows)).long()
        together = _outputs(runner, probe.inputs)[rows]
        alone = torch.cat([_outputs(runner, tuple(tensor[row : row + 1] for tensor in probe.inputs)) for row in rows])
        apart, allowed = (together - alone).abs().max().item(), allowed_from_itself([alone]).atol
        count += len(rows)
        if not apart <= allowed:
            detail = f"rows of {probe.family} [{probe.shapes}] are {apart:.2g} from what they are alone"
            return Finding("rows", False, f"{detail}, {allowed:.2g} allowed")
        furthest, most = max(furthest, apart), min(most, allowed)
    return Finding("rows", True, f"{count} rows alone are at most {furthest:.2g} from together, {most:.2g} allowed")


def _outputs(runner: Runner, inputs: tuple[Tensor, ...]) -> Tensor:
    return runner.run(*copy.deepcopy(inputs))[0]
