"""Which of eager's results is this tensor? By value alone: names and layouts are the exporter's business."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

MOST_AXES = 5
"""Tensors of more axes are compared in their own order only: there are too many others."""


@dataclass(frozen=True)
class Found:
    """The steps among whose results a tensor is."""

    exactly: frozenset[int] = frozenset()
    """With its shape."""
    laid_out: frozenset[int] = frozenset()
    """With the same numbers in another shape, or with its axes in another order."""

    def __bool__(self) -> bool:
        return bool(self.exactly or self.laid_out)


@dataclass
class Pool:
    """Results by step, to be looked up; `allowed` is how far `apart` a value may be from one that it is."""

    allowed: float
    _by_size: dict[int, list[tuple[int, Tensor, tuple[float, ...]]]] = field(default_factory=dict)

    def add(self, step: int, value: Tensor) -> None:
        if is_comparable(value):
            self._by_size.setdefault(_count(value), []).append((step, value, _moments(value)))

    def find(self, value: Tensor) -> Found:
        if not is_comparable(value):
            return Found()
        exactly, laid_out = set(), set()
        moments = _moments(value)
        for step, candidate, others in self._by_size.get(_count(value), ()):
            allowed = self.allowed * _rounding(value, candidate)
            # Whatever the order: these differ by no more than the largest difference of two values.
            if not all(_near(a, b, allowed * others[0]) for a, b in zip(moments, others, strict=True)):
                continue
            if value.shape == candidate.shape and _departure(_flat(value), _flat(candidate)) <= allowed:
                exactly.add(step)
            elif step not in laid_out and _same_numbers(value, candidate, allowed):
                laid_out.add(step)
        return Found(frozenset(exactly), frozenset(laid_out - exactly))


def is_comparable(value: Tensor) -> bool:
    return value.layout == torch.strided and not value.is_quantized and value.numel() > 0


def is_distinctive(value: Tensor) -> bool:
    """Whether a match means anything: not so for a number, a constant, or what was rounded to whole numbers."""
    if not is_comparable(value) or _count(value) < 2 or not (value.is_floating_point() or value.is_complex()):
        return False
    flat = _flat(value)
    finite = flat[flat.isfinite()]
    return finite.numel() > 1 and bool(finite.max() - finite.min() > 1e-6 * finite.abs().max())


def _rounding(*values: Tensor) -> float:
    """Unit of rounding of the coarsest floating-point dtype; no coarser than float32 where there is none."""
    floats = [v.dtype for v in values if v.is_floating_point() or v.is_complex()]
    return max((torch.finfo(dtype).eps for dtype in floats), default=torch.finfo(torch.float32).eps)


def apart(value: Tensor, reference: Tensor) -> float:
    """The largest difference, relative to the largest finite value of the reference, in units of rounding (of the
    coarser of the two dtypes). Infinite for other shapes, and for NaN or infinities at other places."""
    if value.shape != reference.shape or value.is_complex() != reference.is_complex():
        return math.inf
    return _departure(_flat(value), _flat(reference)) / _rounding(value, reference)


def _departure(a: Tensor, b: Tensor) -> float:
    same = (a == b) | (a.isnan() & b.isnan())
    if same.all():
        return 0.0
    if not torch.equal(a.isfinite(), b.isfinite()) or not (same | a.isfinite()).all():
        return math.inf
    largest = torch.where(b.isfinite(), b.abs(), 0.0).max().item()
    difference = torch.where(same, 0.0, a - b).abs().max().item()
    return difference / largest if largest else math.inf


def _same_numbers(value: Tensor, reference: Tensor, allowed: float) -> bool:
    """Whether one is the other reshaped, with its axes in some order."""
    if value.is_complex() or reference.is_complex():
        return False
    a, b = _flat(value), _flat(reference)
    if _departure(a, b) <= allowed:
        return True
    return any(_departure(a, other) <= allowed for other in _orders(reference)) or any(
        _departure(other, b) <= allowed for other in _orders(value)
    )


def _orders(value: Tensor) -> Iterator[Tensor]:
    squeezed = value.to(torch.float64).squeeze()
    axes = range(squeezed.dim())
    if len(axes) > MOST_AXES:
        return iter(())
    permutations: Sequence[tuple[int, ...]] = list(itertools.permutations(axes))[1:]
    return (squeezed.permute(order).reshape(-1) for order in permutations)


def _count(value: Tensor) -> int:
    return value.numel() * (2 if value.is_complex() else 1)


def _flat(value: Tensor) -> Tensor:
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    return value.detach().to(torch.float64).reshape(-1)


def _moments(value: Tensor) -> tuple[float, ...]:
    """Of the finite values, whatever their order: largest magnitude, mean, mean magnitude; and how many there are."""
    flat = _flat(value)
    finite = flat[flat.isfinite()]
    if not finite.numel():
        return 0.0, 0.0, 0.0, 0.0
    size = finite.abs()
    return size.max().item(), finite.mean().item(), size.mean().item(), float(finite.numel())


def _near(a: float, b: float, allowed: float) -> bool:
    return abs(a - b) <= allowed + 1e-12 * max(abs(a), abs(b))
