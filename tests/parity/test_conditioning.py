"""Where rounding alone decides what eager answers, a difference proves nothing; elsewhere it does."""

from collections.abc import Callable

import pytest
import torch
from fake_artifact import Fake
from torch import Tensor, nn

from deploypipe.parity.gate import Gate
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import Reference
from deploypipe.parity.verdict import Report


class Cancels(nn.Module):
    """The difference of two sums of which only rounding is left."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :32].sum(1) - x[:, 32:].sum(1)


def cancelling(rows: int) -> Tensor:
    half = torch.randn(rows, 32, generator=torch.Generator().manual_seed(0)) * 1e4
    return torch.cat([half, half.flip(1)], 1)


class Normalises(nn.Module):
    """A constant has no spread: what is normalised is rounding."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv1d(1, 4, 3, bias=bias)
        self.norm = nn.InstanceNorm1d(4, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x[:, None]))


class Grows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def nudged(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """An artifact that computes with inputs two units in the last place away."""

    @torch.no_grad()
    def compute(x: Tensor) -> Tensor:
        found: Tensor = module(x * (1 + 2 * torch.finfo(x.dtype).eps * torch.linspace(-1, 1, x.shape[1])))
        return found

    return compute


def report_of(function: Callable[[Tensor], Tensor], module: nn.Module, *inputs: Tensor) -> Report:
    probes = tuple(Probe("given", (x,)) for x in inputs)
    return Gate(Reference(module), probes).examine_runner(Fake(function, runtime="onnxruntime"), "artifact")


RANDOM = torch.Generator().manual_seed(1)
ORDINARY = tuple(torch.randn(rows, 64, generator=RANDOM) * 0.1 for rows in (3, 2, 5))


@pytest.mark.parametrize(
    ("module", "hard"),
    [
        (Cancels(), cancelling(16)),
        (Normalises(), torch.full((2, 64), 0.7)),
        (Grows(), torch.full((2, 64), 87.0)),
    ],
    ids=["cancellation", "a constant normalised", "a large exponential"],
)
def test_a_difference_that_rounding_explains_is_undecided(module: nn.Module, hard: Tensor) -> None:
    report = report_of(nudged(module), module, hard, *ORDINARY)
    assert report.passed, report.reason
    assert report.outcomes[0].undecided and report.summary()["undecided"] < len(report.outcomes) / 2
    # The same input does not hide what is wrong.
    assert not report_of(lambda x: module(x).detach() * 1.01 + 1, module, hard, *ORDINARY).passed


def test_what_rounding_makes_of_a_sum_is_undecided_though_its_inputs_are_zero() -> None:
    """Zeros stay zeros when they are moved, and a bias is the same everywhere."""
    module, zeros = Normalises(bias=True), torch.zeros(2, 64)

    @torch.no_grad()
    def compute(x: Tensor) -> Tensor:
        found = module.layer(x[:, None])
        return module.norm(found * (1 + 2 * torch.finfo(x.dtype).eps * torch.linspace(-1, 1, found.shape[2])))

    report = report_of(compute, module, zeros, *ORDINARY)
    assert report.passed and report.outcomes[0].undecided, report.reason
    assert not report_of(lambda x: compute(x) + 1, module, zeros, *ORDINARY).passed


def test_a_well_conditioned_difference_fails() -> None:
    module = nn.Linear(64, 3)
    report = report_of(lambda x: module(x).detach() * 1.001, module, *ORDINARY)
    assert not report.passed and not report.undecided


def test_where_rounding_decides_everywhere_nothing_is_proven() -> None:
    module = Cancels()
    report = report_of(nudged(module), module, cancelling(16))
    assert not report.passed
    assert "comparisons rounding of the inputs moves eager's own answer" in report.reason
