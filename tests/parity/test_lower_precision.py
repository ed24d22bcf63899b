"""What an artifact of lower precision is held to."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from deploypipe.contract.tensors import Array
from deploypipe.formats.runner import Runner
from deploypipe.formats.session import Session
from deploypipe.parity.lower_precision import SHARE, allowed_from_itself, check_accuracy, check_rows
from deploypipe.parity.probes import Probe

IMAGES = 2000
TARGETS = torch.arange(IMAGES) % 10
EAGER = 10.0 * nn.functional.one_hot(TARGETS, 10)
"""Always right."""


def _wrong_on(count: int, images: int = IMAGES) -> Tensor:
    logits = EAGER[:images].clone()
    logits[:count] = logits[:count].roll(1, dims=1)
    return logits


@pytest.mark.parametrize(
    ("wrong", "images", "passes"),
    [(0, 2000, True), (2, 2000, True), (3, 2000, False), (1, 359, True), (2, 359, False)],
    ids=["none", "0.1 points", "0.15 points", "one of few", "two of few"],
)
def test_accuracy_may_fall_by_a_tenth_of_a_point(
    wrong: int, images: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploypipe.parity.lower_precision.FURTHEST", 1.0)  # it is not what is asked here
    found = check_accuracy(EAGER[:images], _wrong_on(wrong, images), TARGETS[:images], "int8")
    assert found.passed is passes, found.detail
    assert f"{100 * wrong / images:.2f} points lost" in found.detail


def test_what_is_gained_elsewhere_counts() -> None:
    eager = EAGER.clone()
    eager[:5] = eager[:5] * 0.9
    found = check_accuracy(_wrong_on(50), eager, TARGETS, "int8")
    assert "-2.50 points lost" in found.detail


@pytest.mark.parametrize(("away", "passes"), [(2.4, True), (2.6, False)])
def test_logits_stay_near_eagers(away: float, passes: bool) -> None:
    rounded = EAGER.clone()
    rounded[7, 3] += away
    assert check_accuracy(EAGER, rounded, TARGETS, "int8").passed is passes


class _Answers(Session):
    runtime, provider = "torch", "cpu"

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__("", "", "cpu")
        self.function = function

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        pixels = torch.from_numpy(arrays[0])
        return [self.function(pixels.float().flatten(1)[:, :10]).numpy()]


@pytest.mark.parametrize(
    ("function", "passes"),
    [
        (lambda rows: rows, True),
        (lambda rows: rows - rows.mean(dim=0), False),
        (lambda rows: -rows if 17 <= len(rows) < 300 else rows, False),
        (lambda rows: rows * float("nan") if len(rows) > 1 else rows, False),
    ],
    ids=["by itself", "sees its neighbours", "sees how many they are", "not a number among others"],
)
def test_a_row_is_what_it_is_alone(function: Callable[[Tensor], Tensor], passes: bool) -> None:
    probes = [Probe("random", (torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8),)) for n in (1, 7, 32, 257)]
    found = check_rows(Runner(_Answers(function)), probes)
    assert found.passed is passes, found.detail


def test_how_far_it_may_be_from_itself() -> None:
    assert allowed_from_itself([torch.tensor([1.0, -8.0]), torch.tensor([2.0])]).atol == SHARE * 8
    assert allowed_from_itself([torch.tensor([float("nan"), 4.0])]).atol == SHARE * 4
