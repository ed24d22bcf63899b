"""Among equal values a choice may be another; among different ones it may not."""

from collections.abc import Callable

import pytest
import torch
from fake_artifact import Fake
from torch import Tensor, nn

from deploypipe.parity.gate import Gate
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import Reference
from deploypipe.parity.verdict import Report


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


ORDINARY = tuple(torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows)) for rows in (2, 3, 4))
TIES = torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0, 0.5]])
SATURATED = torch.tensor([[5e4, -1e4, 2e4, 0.0, 1e4, 3e4]])


def report_of(eager: Callable[[Tensor], object], artifact: Callable[[Tensor], object], *inputs: Tensor) -> Report:
    probes = tuple(Probe("given", (x,)) for x in inputs)
    return Gate(Reference(Function(eager)), probes).examine_runner(Fake(artifact, runtime="onnxruntime"), "artifact")


def from_behind(choose: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same choice, but of equal values the last one."""
    return lambda x: x.shape[-1] - 1 - choose(x.flip(-1))


def topk_from_behind(x: Tensor) -> tuple[Tensor, Tensor]:
    values, places = x.flip(-1).topk(3)
    return values, x.shape[-1] - 1 - places


@pytest.mark.parametrize(
    ("eager", "artifact", "hard"),
    [
        (lambda x: x.topk(3), topk_from_behind, TIES),
        (lambda x: x.softmax(-1).topk(3), lambda x: topk_from_behind(x.softmax(-1)), SATURATED),
        (lambda x: x.argmax(-1), from_behind(lambda x: x.argmax(-1)), TIES),
        (lambda x: x.argmax(-1, keepdim=True), from_behind(lambda x: x.argmax(-1, keepdim=True)), TIES),
        (lambda x: x.min(1).indices, from_behind(lambda x: x.min(1).indices), TIES),
        (
            lambda x: {"b": x.sum(-1), "a": x.argmax(-1)},
            lambda x: {"a": 5 - x.flip(-1).argmax(-1), "b": x.sum(-1)},
            TIES,
        ),
        (lambda x: x[0].argmax(), lambda x: 5 - x[0].flip(-1).argmax(), TIES),
    ],
    ids=["topk", "a saturated softmax", "argmax", "kept axis", "min", "a dict", "of everything"],
)
def test_another_one_of_equal_values_is_undecided(
    eager: Callable[[Tensor], object], artifact: Callable[[Tensor], object], hard: Tensor
) -> None:
    report = report_of(eager, artifact, hard, *ORDINARY)
    assert report.passed, report.reason
    assert [outcome.undecided for outcome in report.outcomes].count(True) >= 1


@pytest.mark.parametrize(
    ("eager", "artifact"),
    [
        (lambda x: x.topk(3), lambda x: (x.topk(3).values, (x.topk(3).indices + 1) % 6)),
        (lambda x: x.topk(3), lambda x: (x.topk(3).values, x.topk(1).indices.expand(-1, 3))),
        (lambda x: x.topk(3), lambda x: (x.topk(3).values, x.topk(3).indices - 6)),
        (lambda x: x.argmax(-1), lambda x: x.argmin(-1)),
        (lambda x: (x > 0).long().sum(-1), lambda x: (x > 0).long().sum(-1) + 1),
    ],
    ids=["off by one", "one place three times", "outside", "the other end", "a count"],
)
@pytest.mark.parametrize("hard", [TIES, ORDINARY[0]], ids=["with ties", "without"])
def test_a_worse_value_is_a_difference(
    eager: Callable[[Tensor], object], artifact: Callable[[Tensor], object], hard: Tensor
) -> None:
    assert not report_of(eager, artifact, hard, *ORDINARY).passed


def test_near_values_tie_only_as_far_as_rounding_goes() -> None:
    near, apart = torch.tensor([[1.0, 1.0 + 2e-7]]), torch.tensor([[1.0, 1.0 + 1e-5]])
    assert report_of(lambda x: x.argmax(-1), lambda x: 1 - x.argmax(-1), near).outcomes[0].undecided
    assert not report_of(lambda x: x.argmax(-1), lambda x: 1 - x.argmax(-1), apart).outcomes[0].passed
