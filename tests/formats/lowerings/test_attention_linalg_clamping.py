"""Attention without heads, small matrices, and clamping on one side, as eager has them at the edges."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from edges import FLOATS
from torch import Tensor

Inputs = Sequence[tuple[Tensor, ...]]

TOKENS = torch.linspace(-2, 2, 60).cos().reshape(3, 5, 4)
ATTENDED: Inputs = [(TOKENS[:2],), (TOKENS[:1],), (TOKENS * 30,)]
MASK = torch.ones(5, 5, dtype=torch.bool).tril()


def attention(x: Tensor) -> Any:
    return (
        F.scaled_dot_product_attention(x, x.flip(-1), x),
        F.scaled_dot_product_attention(x, x.flip(-1), x, is_causal=True),
        F.scaled_dot_product_attention(x, x, x, attn_mask=MASK, scale=0.3),
        F.scaled_dot_product_attention(x, x, x, attn_mask=MASK.expand(x.shape[0], 5, 5)),
        F.scaled_dot_product_attention(x[:, 0], x[:, 1], x[:, 2]),
    )


def hidden(x: Tensor) -> Any:
    """Masks of flags, in which some queries see no key: with heads, without, and one mask for all rows."""
    seen = (x[..., :1] > 0).expand(-1, -1, x.shape[1])
    heads = x[:, None]
    return (
        F.scaled_dot_product_attention(x, x, x, attn_mask=seen),
        F.scaled_dot_product_attention(heads, heads, heads, attn_mask=seen[:, None]),
        F.scaled_dot_product_attention(heads, heads, heads, attn_mask=seen.transpose(1, 2)[:, None]),
    )


SQUARES: Inputs = [
    (torch.tensor([[2.0, -1.0, 0.5, 1.0, 3.0, -2.0, 0.0, 1.0, 1.5], [1.0, 2.0, 3.0, 0.0, 1.0, 4.0, 5.0, 6.0, 0.0]]),),
    (torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0]]),),  # each pivot is below or absent
    (torch.eye(3).reshape(1, 9) * 1e-3,),
]


def matrices(x: Tensor) -> Any:
    x = x.reshape(-1, 3, 3)
    return torch.linalg.inv(x), torch.inverse(x), torch.linalg.solve(x, x[:, :, :2] + 1), *torch.linalg.slogdet(x)


def clamped(x: Tensor) -> Any:
    return x.clamp(min=0.5), x.clamp(max=0.5), x.clamp(-1, 1), x.clamp_min(-2.0), F.relu6(x)


CASES: dict[str, tuple[Callable[[Tensor], Any], Inputs]] = {
    "attention": (attention, ATTENDED),
    "hidden": (hidden, [*ATTENDED, (TOKENS.abs() * -1,)]),
    "matrices": (matrices, SQUARES),
    "clamped": (clamped, FLOATS),
}


@pytest.mark.parametrize(("forward", "inputs"), CASES.values(), ids=CASES)
def test_operator(compare: Any, forward: Any, inputs: Any) -> None:
    compare(forward, inputs)
