"""Values picked by a mask, and signs, as eager has them at the edges."""

from typing import Any

import pytest
from edges import FINITE, FLOATS, INTEGERS
from torch import Tensor


def picked(x: Tensor) -> Any:
    return x.masked_select(x > 0), x.masked_select(x[:, :1] > -9), x[:, :1].masked_select(x > 0)


def signs(x: Tensor) -> Any:
    return x.sign()


CASES = {"picked": (picked, FINITE), "signs": (signs, FLOATS), "signs, int64": (signs, INTEGERS)}


@pytest.mark.parametrize(("forward", "inputs"), CASES.values(), ids=CASES)
def test_selection(compare: Any, forward: Any, inputs: Any) -> None:
    compare(forward, inputs)
