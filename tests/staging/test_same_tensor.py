"""Tensors that are one in eager: who is joined with whom, however often it is said."""

import torch

from deploypipe.staging.context import StagingContext, active
from deploypipe.staging.same_tensor import join, partners


def test_joining_again_adds_nothing() -> None:
    """A loop in a loop joins its variables in every dry run: counted twice, partners of partners grew without bound."""
    first, second = torch.zeros(2), torch.zeros(2)
    with active(StagingContext(capturing=True)):
        for _ in range(3):
            join(first, second)
        join(first, first.view(1, 2))
        assert [partner is second for partner in partners(first)] == [True]
        assert [partner is first for partner in partners(second)] == [True]
        assert partners(torch.zeros(2)) == []
