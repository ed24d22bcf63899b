"""Sizes at which artifacts turn wrong are tried: equal ones, and those beside each limit."""

from pathlib import Path

import pytest
import torch
from fake_artifact import Fake
from torch import Tensor, nn

import deploypipe
from deploypipe.contract.signature import Signature, TensorSpec
from deploypipe.contract.sizes import Axis, broken_limits
from deploypipe.errors import ParityError
from deploypipe.formats import FORMATS
from deploypipe.parity.edges import edges_of, equal_sizes
from deploypipe.parity.gate import Gate
from deploypipe.parity.probes import drawn_probes
from deploypipe.parity.reference import Reference
from deploypipe.parity.refusals import check_refusals
from deploypipe.verify import gate_for

A, B, C = Axis("a"), Axis("b"), Axis("c")


@pytest.mark.parametrize(
    ("axes", "limits", "equal"),
    [
        ([A], (), []),
        ([A, B], (), [{"a": 3, "b": 3}]),
        ([A, Axis("b", 16)], (), [{"a": 48, "b": 3}]),
        ([A, B], ("a <= 2",), [{"a": 2, "b": 2}]),
        ([A, B], ("a < b",), []),
        (
            [A, B, C],
            (),
            [{"a": 3, "b": 3, "c": 9}, {"a": 3, "b": 8, "c": 3}, {"a": 7, "b": 3, "c": 3}, {"a": 3, "b": 3, "c": 3}],
        ),
    ],
    ids=["one symbol", "two", "a multiple", "a limit", "never equal", "three"],
)
def test_any_two_symbols_have_one_size(axes: list[Axis], limits: tuple[str, ...], equal: list[dict[str, int]]) -> None:
    own = {axis.symbol: {"a": 7, "b": 8, "c": 9}[axis.symbol] for axis in axes}
    assert equal_sizes(axes, own, limits) == equal


@pytest.mark.parametrize(
    ("limits", "on", "inside", "outside"),
    [
        (("a <= 64",), {64}, {63}, {65}),
        (("a >= 2", "a <= 500"), {2, 500}, {3, 499}, {1, 501}),
        (("a % 8 == 0",), {8}, {16}, {7, 9}),
        (("a < b",), {10}, {9}, {11}),
        (("a != b",), {10, 12}, {9, 13}, {11}),
    ],
    ids=["range", "both ends", "multiple", "two symbols", "unequal"],
)
def test_every_limit_is_tried_on_it_inside_and_outside(
    limits: tuple[str, ...], on: set[int], inside: set[int], outside: set[int]
) -> None:
    edges = [edge for edge in edges_of(limits, {"a": 8, "b": 11}) if edge.on["b"] == 11 == edge.outside["b"]]
    assert {edge.on["a"] for edge in edges} == on
    assert inside <= {edge.inside["a"] for edge in edges if edge.inside}
    assert {edge.outside["a"] for edge in edges} == outside
    assert all(edge.limit in broken_limits(limits, edge.outside) for edge in edges)


SPECS = (TensorSpec("x", "float32", ("a", 3)), TensorSpec("y", "float32", ("4*b",)))
EXAMPLE = (torch.ones(5, 3), torch.ones(8))


def test_the_probes_have_these_sizes() -> None:
    probes = drawn_probes(SPECS, EXAMPLE, ("a <= 50",))
    sizes = {(probe.inputs[0].shape[0], probe.inputs[1].shape[0]) for probe in probes}
    assert {(12, 12), (50, 8), (49, 8)} <= sizes
    assert max(rows for rows, _ in sizes) == 50


class Rows(nn.Module):
    """Its rows and its columns are whatever they are."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x.sum(1) + y.sum()


@pytest.mark.parametrize("format", FORMATS)
def test_an_artifact_refuses_what_is_outside_of_its_limits(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{FORMATS[format].suffix}"
    axes = {"x": {0: "a:2..50"}, "y": {0: "4*b"}}
    artifact = deploypipe.export(Rows().eval(), EXAMPLE, format=format, path=path, dynamic=axes)
    assert "size limits" in artifact.parity["checks"]
    finding = check_refusals(deploypipe.load(path), EXAMPLE)
    assert finding and finding.passed and "`a >= 2`, `a <= 50`, `y: float32[4*b]`" in finding.detail
    report = gate_for(Rows(), EXAMPLE, SPECS, axes).examine(path, fresh=False)
    assert report.passed and {"equal sizes", "edge of a limit"} <= {outcome.family for outcome in report.outcomes}


def test_an_artifact_that_takes_more_than_it_states_is_rejected() -> None:
    signature = Signature(SPECS, (TensorSpec("out", "float32", ("a",)),), limits=("a <= 50",))
    finding = check_refusals(Fake(Rows(), signature=signature), EXAMPLE)  # a Fake refuses nothing
    assert finding and not finding.passed
    assert "[51, 3] [8] must be refused for `a <= 50`, but is taken" in finding.detail


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(0) if x.shape[0] == x.shape[1] else x.sum(1)[:, None] * torch.ones(x.shape[1])


def test_a_branch_that_only_equal_sizes_take_is_found() -> None:
    """The artifact has lost it."""
    spec = TensorSpec("x", "float32", ("a", "b"))
    probes = tuple(drawn_probes((spec,), (torch.ones(2, 5),)))
    report = Gate(Reference(Square()), probes).examine_runner(
        Fake(lambda x: x.sum(1)[:, None] * torch.ones(x.shape[1])), "artifact"
    )
    with pytest.raises(ParityError, match="equal sizes"):
        report.raise_if_failed()
