"""An artifact that is a function, and what the gate says of it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.contract.signature import Signature
from deploypipe.eager import flat_tensors
from deploypipe.parity.gate import Gate
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import Reference
from deploypipe.parity.tolerances import NO_OVERRIDES, Overrides
from deploypipe.parity.verdict import Report

INPUT = torch.tensor([[1.0, -2.0], [3.0, 0.5]])


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


@dataclass
class Fake:
    """An artifact that returns whatever `function` makes of the inputs."""

    function: Callable[..., Any]
    runtime: str = "torch"
    provider: str = "cpu"
    signature: Signature | None = None
    precision: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    stoppable: bool = True

    def within(self, seconds: float) -> AbstractContextManager[None]:
        return nullcontext()

    def answer(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)

    def run(self, *inputs: Tensor) -> list[Tensor]:
        return flat_tensors(self.function(*inputs))[0]


def report_of(
    function: Callable[..., Any],
    module: nn.Module | None = None,
    *,
    probe: Probe | None = None,
    overrides: Overrides = NO_OVERRIDES,
    **options: Any,
) -> Report:
    gate = Gate(Reference(module or Scale()), (probe or Probe("given", (INPUT,)),), overrides=overrides)
    return gate.examine_runner(Fake(function, **options), "artifact")
