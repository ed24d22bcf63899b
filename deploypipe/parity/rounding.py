"""What rounding explains: how values move when what they are computed from moves by a unit in the last place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deploypipe.torch_compat.dispatch import TorchDispatchMode, pytree

NARROW = (torch.float16, torch.bfloat16, torch.float32)
SUMS = {"convolution", "mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot", "sum", "mean"}
"""Operators of which a runtime chooses the order of summation, and so how they round."""


def nudged(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """In float64, each value moved by up to a unit in the last place that it has in its own dtype."""
    return _moved(tensor, torch.finfo(tensor.dtype).eps, generator) if tensor.dtype in NARROW else tensor


def _moved(tensor: Tensor, unit: float, generator: torch.Generator) -> Tensor:
    by = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return tensor.double() * (1 + unit * by)


class RoundedSums(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Moves what sums give by up to a unit in the last place of `dtype`: a layer that makes a constant of its input
    (a convolution of zeros, with a bias) is followed by one that normalises it, and neither input nor weights show what
    rounding does there. Whole numbers stay, for a sum of them is exact."""

    def __init__(self, dtype: torch.dtype, generator: torch.Generator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._unit, self._generator = torch.finfo(dtype).eps, generator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in SUMS or func._schema.is_mutable:
            return outputs
        return pytree.tree_map_only(Tensor, self._rounded, outputs)

    def _rounded(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        moved = _moved(tensor, self._unit, self._generator).to(tensor.dtype)
        return torch.where(tensor == tensor.round(), tensor, moved)
