"""Attributes that forward writes: what is kept for one size is computed anew, a memory of earlier calls is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploypipe.errors import ExportError
from deploypipe.staging.attributes import remembers, without_caches
from deploypipe.staging.trace import trace


class Mask(nn.Module):
    """A mask for the length that was seen last."""

    def __init__(self) -> None:
        super().__init__()
        self._mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        if self._mask is None or self._mask.shape[0] != length:
            self._mask = torch.full((length, length), float("-inf")).triu(1)
        return (x @ x.transpose(1, 2) + self._mask).softmax(-1) @ x


class Anchors(nn.Module):
    """Points for the size that was seen last, which is kept beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.size: tuple[int, ...] = ()
        self.points = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        if self.size != tuple(x.shape[1:]):
            self.points, self.size = torch.arange(x.shape[1]).float()[:, None].expand(x.shape[1:]), tuple(x.shape[1:])
        return x + self.points


class Last(nn.Module):
    """For whoever looks at it after the call."""

    def __init__(self) -> None:
        super().__init__()
        self.last: list[Tensor] = []
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = [x.mean()]
        return x * 2


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + x.mean()
        return x - self.mean


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


X = torch.randn(2, 5, 4)
DYNAMIC = {"x": {0: "batch", 1: "length"}}


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("kind", [Mask, Anchors, Last])
def test_what_is_kept_for_one_size_is_computed_anew(kind: type[nn.Module], used: bool) -> None:
    module = kind().eval()
    if used:
        module(X)
    captured = trace(module, (X,), DYNAMIC)
    assert captured.limits == ()
    for shape in ((2, 5, 4), (1, 3, 4), (3, 8, 4), (2, 1, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(captured.program.module()(x), kind().eval()(x))


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize(("kind", "name"), [(Mean, "mean"), (Counts, "calls")])
def test_a_memory_is_refused(kind: type[nn.Module], name: str, used: bool) -> None:
    module = kind().eval()
    if used:
        module(X)
    assert remembers(module, (X,), DYNAMIC)
    with pytest.raises(ExportError, match=rf"attribute `{name}` .*the artifact has no memory between calls"):
        trace(module, (X,), DYNAMIC)


def test_what_forward_needs_is_not_forgotten() -> None:
    class Grows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.arange(4.0)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] > self.table.shape[0]:
                self.table = torch.arange(float(x.shape[1]))
            return x + self.table[: x.shape[1], None]

    assert without_caches(Grows(), (torch.randn(2, 3, 4),), DYNAMIC) is None
    assert without_caches(nn.Linear(4, 4), (X,), {"input": {0: "batch"}}) is None
