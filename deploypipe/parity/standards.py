"""What an artifact is held to: most must equal eager; one of lower precision must do its task as well as eager does.

An artifact of lower precision names it in its file. `standard_of` is where that name becomes a standard; nothing else
asks for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deploypipe.contract.signature import dtype_name
from deploypipe.errors import UsageError
from deploypipe.formats.inspection import Inspection
from deploypipe.formats.runner import Runner
from deploypipe.parity.lower_precision import Itself, allowed_from_itself, check_accuracy, check_rows
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import Reference
from deploypipe.parity.tolerances import (
    ANY_VALUE,
    EXACT,
    NO_OVERRIDES,
    OTHER_KERNELS,
    TOLERANCES,
    Overrides,
    Tolerance,
    tolerance_of,
)
from deploypipe.parity.verdict import Finding
from deploypipe.parity.weights import check_rounded_weights, check_weights

INT8 = "int8"
"""The lower precision that there is."""


@dataclass(frozen=True)
class Standard(ABC):
    """How far an artifact's values may be from eager's, and which other checks it must pass."""

    precision: str = ""
    """What the artifact's file says of it: "int8"; "" where its values are eager's."""
    overrides: Overrides = NO_OVERRIDES

    def tolerance(self, dtype: torch.dtype, runtime: str, output: str) -> Tolerance:
        """How far the values of an output may be from eager's."""
        return tolerance_of(dtype, runtime, output, self.overrides)

    def limits_error(self, output: str) -> bool:
        """Whether an output may not be much further from float64 than eager is. Whoever names a tolerance has said
        which error is fine."""
        return not self.overrides.concern(output)

    def limits_non_finite(self) -> bool:
        """Whether what it makes of NaN and infinities is to be compared with eager."""
        return True

    def needs_test_set(self) -> bool:
        """Whether nothing can be said without the data that the model was tested on."""
        return False

    @abstractmethod
    def under_other_settings(
        self, reference: Reference, runner: Runner, probes: Sequence[Probe]
    ) -> tuple[Reference, "Standard"]:
        """What the artifact is compared with on `probes` when it runs under other settings than `runner`'s, and what it
        is held to there."""

    @abstractmethod
    def on_another_machine(self, outputs: Sequence[Tensor]) -> list[Tolerance]:
        """How far an artifact may be there from each of `outputs`, those of the sample in its sidecar."""

    @abstractmethod
    def check_weights(self, module: nn.Module, inspection: Inspection) -> Finding:
        """Whether the weights in the file are the module's."""

    @abstractmethod
    def check_answers(self, runner: Runner, probes: Sequence[Probe]) -> list[Finding]:
        """What must hold of the artifact's own answers."""

    @abstractmethod
    def check_logits(self, eager: Tensor, artifact: Tensor, targets: Tensor) -> list[Finding]:
        """What must hold of the logits `[n, classes]` for the test set, beside the tolerance."""

    @abstractmethod
    def sample_from(self, eager: nn.Module, load: Callable[[], Runner]) -> nn.Module | Runner:
        """Whose answers the sidecar carries as a sample, for whoever loads the artifact later: eager's, or those of the
        artifact that `load` gives."""

    @abstractmethod
    def claims(self, findings: Sequence[Finding]) -> Mapping[str, str]:
        """What the summary of a report says beside the verdict."""


class EqualToEager(Standard):
    """Every value is eager's, up to the rounding of another kernel."""

    def under_other_settings(
        self, reference: Reference, runner: Runner, probes: Sequence[Probe]
    ) -> tuple[Reference, Standard]:
        return reference, self

    def on_another_machine(self, outputs: Sequence[Tensor]) -> list[Tolerance]:
        return [TOLERANCES.get((OTHER_KERNELS, dtype_name(output.dtype)), EXACT) for output in outputs]

    def check_weights(self, module: nn.Module, inspection: Inspection) -> Finding:
        return check_weights(module, inspection.constants)

    def check_answers(self, runner: Runner, probes: Sequence[Probe]) -> list[Finding]:
        return []

    def check_logits(self, eager: Tensor, artifact: Tensor, targets: Tensor) -> list[Finding]:
        return []

    def sample_from(self, eager: nn.Module, load: Callable[[], Runner]) -> nn.Module | Runner:
        return eager

    def claims(self, findings: Sequence[Finding]) -> Mapping[str, str]:
        return {}


EQUAL_TO_EAGER = EqualToEager()
"""What is required of an artifact unless somebody says otherwise."""


class HeldToTask(Standard):
    """Values are rounded on purpose and need not be eager's, unless the user says how far they may be: the artifact
    must be as accurate as eager, and must return the same however it is run."""

    def __init__(self, precision: str, overrides: Overrides = NO_OVERRIDES) -> None:
        super().__init__(precision, ANY_VALUE if overrides == NO_OVERRIDES else overrides)

    def limits_non_finite(self) -> bool:
        return False  # a whole number of eight bits has neither

    def needs_test_set(self) -> bool:
        return self.overrides == ANY_VALUE

    def under_other_settings(
        self, reference: Reference, runner: Runner, probes: Sequence[Probe]
    ) -> tuple[Reference, Standard]:
        itself = Itself(reference.module, runner, reference.budget)
        answers = [leaf for probe in probes for leaf in itself.answer(probe).leaves]
        allowed = allowed_from_itself(answers)
        return itself, EqualToEager(overrides=Overrides({"": allowed.atol}, {"": allowed.rtol}))

    def on_another_machine(self, outputs: Sequence[Tensor]) -> list[Tolerance]:
        return [allowed_from_itself([output]) for output in outputs]

    def check_weights(self, module: nn.Module, inspection: Inspection) -> Finding:
        return check_rounded_weights(module, inspection)

    def check_answers(self, runner: Runner, probes: Sequence[Probe]) -> list[Finding]:
        return [check_rows(runner, probes)]

    def check_logits(self, eager: Tensor, artifact: Tensor, targets: Tensor) -> list[Finding]:
        return [check_accuracy(eager, artifact, targets, self.precision)]

    def sample_from(self, eager: nn.Module, load: Callable[[], Runner]) -> nn.Module | Runner:
        return load()

    def claims(self, findings: Sequence[Finding]) -> Mapping[str, str]:
        said = {finding.check: finding.detail for finding in findings}
        return {"precision": self.precision, "accuracy": said.get("accuracy", "")}


def standard_of(precision: str, overrides: Overrides = NO_OVERRIDES, title: str = "the artifact") -> Standard:
    """The standard of an artifact whose file names `precision`. UsageError for a precision that is not known."""
    if not precision:
        return EqualToEager(overrides=overrides)
    if precision != INT8:
        raise UsageError(f"{title} is {precision!r}, a precision that is not known here")
    return HeldToTask(precision, overrides)
