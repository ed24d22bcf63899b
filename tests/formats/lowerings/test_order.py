"""Largest and smallest values, sorting, order statistics and searching, as eager has them at the edges."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from edges import BOOLEANS, FINITE, FLOATS, INTEGERS
from torch import Tensor

EDGES = torch.tensor([-1.0, 0.0, 0.0, 0.5, 2.0])
MANY = torch.linspace(-4.0, 4.0, 41)


def extremes(x: Tensor) -> Any:
    return x.amax(-1), x.amin(-1, keepdim=True), *x.max(-1), *x.min(-1, keepdim=True), x.argmax(-1), x.argmin(-1)


def extremes_of_all(x: Tensor) -> Any:
    # The row keeps eager from refusing a batch of none.
    x = torch.cat((x, x.new_ones(1, 6)))
    return x.max(), x.min(), x.argmax(), x.argmin(), *torch.aminmax(x), x.amax(), x.amax(0), x.amin((0, 1))


def extremes_of_flags(x: Tensor) -> Any:
    return x.amax(-1), x.amin(-1), x.max(-1)[0]


def extremes_of_two(x: Tensor) -> Any:
    return torch.fmax(x, x.flip(-1)), torch.fmin(x, x.flip(-1))


def sorts(x: Tensor) -> Any:
    return *x.sort(-1), *torch.sort(x, stable=True, descending=True), torch.argsort(x, stable=True), x.sort(0)[0]


def at(found: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Where several values are equal, eager may name the place of any."""
    values, places = found
    return values, x.gather(-1, places.unsqueeze(-1) if places.dim() < x.dim() else places)


def ranked(x: Tensor) -> Any:
    return (
        *at(x.topk(3), x),
        *at(x.topk(2, largest=False), x),
        *at(x.kthvalue(2), x),
        *at(x.kthvalue(5, keepdim=True), x),
        *at(x.median(-1), x),
        *at(x.nanmedian(-1, keepdim=True), x),
    )


def medians_of_all(x: Tensor) -> Any:
    x = torch.cat((x, x.new_ones(1, 6)))
    return x.median(), x.nanmedian(), x.median(0)[0], x.reshape(-1, 2, 3).median(1)[0]


def modes(x: Tensor) -> Any:
    return *x.mode(-1), *x.mode(-1, keepdim=True)


def quantiles(x: Tensor) -> Any:
    return x.quantile(0.3, -1), x.quantile(torch.tensor([0.25, 0.5]), -1), x.nanquantile(0.5, -1)


def places(x: Tensor) -> Any:
    return (
        torch.bucketize(x, EDGES),
        torch.bucketize(x, EDGES, right=True, out_int32=True),
        torch.searchsorted(EDGES, x, side="right"),
        torch.searchsorted(EDGES.flip(0), x, sorter=torch.tensor([4, 3, 2, 1, 0])),
        torch.searchsorted(MANY, x),
        torch.searchsorted(MANY, x, right=True),
    )


def places_in_rows(x: Tensor) -> Any:
    rows = x.sort(-1)[0]
    return torch.searchsorted(rows, x), torch.searchsorted(rows.repeat_interleave(8, -1), x, right=True)


def members(x: Tensor) -> Any:
    return torch.isin(x, torch.tensor([1, 0, 4]).to(x.dtype)), x.unsqueeze(-1).eq(torch.tensor([1, 2])).any(-1)


CASES: dict[str, tuple[Callable[[Tensor], Any], Sequence[tuple[Tensor, ...]]]] = {
    "extremes": (extremes, FLOATS),
    "extremes, double": (extremes, [(x.double(),) for (x,) in FLOATS]),
    "extremes, int64": (extremes, INTEGERS),
    "extremes, int32": (extremes, [(x.int(),) for (x,) in INTEGERS]),
    "extremes, bool": (extremes_of_flags, BOOLEANS),
    "extremes of all": (extremes_of_all, FLOATS),
    "fmax, fmin": (extremes_of_two, FLOATS),
    "sorts": (sorts, FLOATS),
    "sorts, int64": (sorts, INTEGERS),
    "sorts, uint8": (sorts, [(x.abs().byte(),) for (x,) in INTEGERS]),
    "sorts, bool": (sorts, BOOLEANS),
    "ranked": (ranked, FLOATS),
    "ranked, int64": (ranked, INTEGERS),
    "medians of all": (medians_of_all, FLOATS),
    "modes": (modes, FINITE),
    "modes, int64": (modes, INTEGERS),
    "quantiles": (quantiles, FLOATS[:-1]),
    "places": (places, FLOATS),
    "places in rows": (places_in_rows, FINITE),
    "members": (members, FINITE),
}


@pytest.mark.sample(8)
@pytest.mark.parametrize(("forward", "inputs"), CASES.values(), ids=CASES)
def test_order(compare: Any, forward: Any, inputs: Any) -> None:
    compare(forward, inputs)
