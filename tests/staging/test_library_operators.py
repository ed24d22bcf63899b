"""Operators of libraries become operators of torch."""

import pytest
import torch
from torch import nn

from deploypipe.staging import library_operators
from deploypipe.staging.trace import trace


def _row_by_row(input, weight, offs):
    """What the operator is documented to return."""
    result, start = torch.zeros(input.shape[0], weight.shape[2]), 0
    for expert, end in enumerate(offs.tolist()):
        result[start:end] = input[start:end] @ weight[expert]
        start = end
    return result


@pytest.mark.parametrize(
    "ends", [[2, 5, 7], [0, 7, 7], [7, 7, 7], [0, 0, 7], [1, 2, 4]], ids=lambda ends: "-".join(map(str, ends))
)
def test_grouped_product(ends):
    input, weight, offs = torch.randn(7, 4), torch.randn(3, 4, 5), torch.tensor(ends, dtype=torch.int32)
    found = library_operators._grouped_mm(input, weight, offs)
    assert torch.allclose(found, _row_by_row(input, weight, offs), atol=1e-5)


def test_operator_is_replaced_in_the_program_for_every_size(monkeypatch):
    @torch.library.custom_op("deploypipe_tests::twice_plus", mutates_args=())
    def twice_plus(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2 + y

    @twice_plus.register_fake
    def _(x, y):
        return torch.empty_like(x)

    class Uses(nn.Module):
        def forward(self, x):
            return torch.ops.deploypipe_tests.twice_plus(x, x.sum()) + 1

    composed = {"deploypipe_tests::twice_plus": lambda x, y: x * 2 + y}
    monkeypatch.setattr(library_operators, "COMPOSED", composed)
    program = trace(Uses(), (torch.randn(2, 3),), {"x": {0: "batch"}}).program
    assert "deploypipe_tests" not in str(program.graph)
    x = torch.randn(5, 3)
    assert torch.allclose(program.module()(x), x * 2 + x.sum() + 1)
