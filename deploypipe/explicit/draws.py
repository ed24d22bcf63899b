"""Each function of torch that draws random numbers, as a function of noise that is given.

Noise is either standard normal or uniform in [0, 1). Where torch returns such numbers as they are (`randn`, `rand`,
`randn_like`, `normal_`, …), the noise is what torch returns. Everything else is computed from it by the inverse of its
distribution function, so that the distribution is torch's, though not each number from the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from deploypipe.torch_compat.operators import DROPOUT

SMALLEST = 2.0**-24
"""Of uniform noise where its logarithm is taken; the largest is one less than 1 by as much."""


class Noise(Protocol):
    """Where noise comes from: each call returns the next of it."""

    def normal(self, shape: Sequence[Any], dtype: torch.dtype) -> Tensor: ...

    def uniform(self, shape: Sequence[Any], dtype: torch.dtype) -> Tensor: ...


def draw(name: str, noise: Noise, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the torch function `name` returns for these arguments and this noise. KeyError for a function that has no
    such form."""
    if name in DROPOUT:
        return _dropout(name, noise, *args, **kwargs)
    given = {key: value for key, value in kwargs.items() if key not in ("generator", "device", "layout", "pin_memory",
                                                                       "requires_grad", "memory_format")}  # fmt: skip
    return DRAWS[name](noise, *args, **given)


def _shape(size: tuple[Any, ...]) -> tuple[Any, ...]:
    """`randn(2, 3)` and `randn((2, 3))`."""
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], Sequence) else tuple(size)


def _inside(uniform: Tensor) -> Tensor:
    """Noise that is somebody's input may be anything: here it is in (0, 1)."""
    return uniform.clamp(SMALLEST, 1 - SMALLEST)


def _exponential(uniform: Tensor) -> Tensor:
    return -torch.log1p(-_inside(uniform))


def _float_of(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype()


def _randn(noise: Noise, *args: Any, size: Any = None, dtype: torch.dtype | None = None) -> Tensor:
    return noise.normal(_shape(args) if size is None else tuple(size), dtype or torch.get_default_dtype())


def _rand(noise: Noise, *args: Any, size: Any = None, dtype: torch.dtype | None = None) -> Tensor:
    return noise.uniform(_shape(args) if size is None else tuple(size), dtype or torch.get_default_dtype())


def _randn_like(noise: Noise, input: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return noise.normal(input.shape, dtype or input.dtype)


def _rand_like(noise: Noise, input: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return noise.uniform(input.shape, dtype or input.dtype)


def _normal(
    noise: Noise, mean: Any = 0.0, std: Any = 1.0, size: Any = None, dtype: torch.dtype | None = None
) -> Tensor:
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    shape = sum(tensors, start=torch.zeros(())).shape if size is None else size
    drawn = noise.normal(shape, dtype or (_float_of(tensors[0]) if tensors else torch.get_default_dtype()))
    made: Tensor = drawn * std + mean
    return made


def _normal_(noise: Noise, input: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return input.copy_(noise.normal(input.shape, input.dtype) * std + mean)


def _log_normal_(noise: Noise, input: Tensor, mean: float = 1.0, std: float = 2.0) -> Tensor:
    return input.copy_(torch.exp(noise.normal(input.shape, input.dtype) * std + mean))


def _uniform_(noise: Noise, input: Tensor, *bounds: float, **named: float) -> Tensor:
    low = bounds[0] if bounds else named.get("from", 0.0)
    high = bounds[1] if len(bounds) > 1 else named.get("to", 1.0)
    return input.copy_(noise.uniform(input.shape, input.dtype) * (high - low) + low)


def _exponential_(noise: Noise, input: Tensor, lambd: float = 1.0) -> Tensor:
    return input.copy_(_exponential(noise.uniform(input.shape, input.dtype)) / lambd)


def _cauchy_(noise: Noise, input: Tensor, median: float = 0.0, sigma: float = 1.0) -> Tensor:
    return input.copy_(torch.tan((_inside(noise.uniform(input.shape, input.dtype)) - 0.5) * math.pi) * sigma + median)


def _geometric_(noise: Noise, input: Tensor, p: float) -> Tensor:
    return input.copy_(torch.ceil(_exponential(noise.uniform(input.shape, _float_of(input))) / -math.log1p(-p)))


def _bernoulli(noise: Noise, input: Tensor, p: float | None = None) -> Tensor:
    return (noise.uniform(input.shape, _float_of(input)) < (input if p is None else p)).to(input.dtype)


def _bernoulli_(noise: Noise, input: Tensor, p: Any = 0.5) -> Tensor:
    return input.copy_(noise.uniform(input.shape, _float_of(input)) < p)


def _randint(noise: Noise, *args: Any, low: int = 0, high: Any = None, size: Any = None,
             dtype: torch.dtype = torch.int64) -> Tensor:  # fmt: skip
    given = list(args)
    if size is None:
        size = given.pop()
    if len(given) == 2:
        low, high = given
    elif given:
        high = given[0]
    return _integers(noise.uniform(size, torch.float64), low, high, dtype)


def _randint_like(noise: Noise, input: Tensor, *bounds: Any, low: int = 0, high: Any = None,
                  dtype: torch.dtype | None = None) -> Tensor:  # fmt: skip
    if bounds:
        low, high = bounds if len(bounds) == 2 else (low, bounds[0])
    return _integers(noise.uniform(input.shape, torch.float64), low, high, dtype or input.dtype)


def _integers(uniform: Tensor, low: Any, high: Any, dtype: torch.dtype) -> Tensor:
    whole: Tensor = torch.floor(uniform.clamp(0.0, 1 - SMALLEST) * (high - low)) + low
    return whole.to(dtype)


def _randperm(noise: Noise, n: Any, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.argsort(noise.uniform((n,), torch.float64)).to(dtype)


def _multinomial(noise: Noise, input: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """The category whose exponential waiting time is the shortest; without replacement the first ones to arrive."""
    if not replacement:
        times = _exponential(noise.uniform(input.shape, input.dtype))
        return torch.topk(input / times, num_samples, dim=-1).indices
    shape = (*input.shape[:-1], num_samples, input.shape[-1])
    return torch.argmax(input.unsqueeze(-2) / _exponential(noise.uniform(shape, input.dtype)), dim=-1)


def _gumbel_softmax(
    noise: Noise, logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    gumbel = -torch.log(_exponential(noise.uniform(logits.shape, logits.dtype)))
    soft = functional.softmax((logits + gumbel) / tau, dim)
    if not hard:
        return soft
    return torch.zeros_like(logits).scatter(dim, soft.argmax(dim, keepdim=True), 1.0)


def _dropout(
    name: str, noise: Noise, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if name.startswith(("alpha", "feature_alpha")):
        raise KeyError(name)
    whole = name.startswith("feature") or name.rstrip("_")[-2:] in ("1d", "2d", "3d")
    shape = (*input.shape[:2], *[1] * (input.dim() - 2)) if whole else input.shape
    kept = noise.uniform(shape, input.dtype) >= p
    dropped = input * kept / (1 - p) if p < 1 else torch.zeros_like(input)
    return input.copy_(dropped) if inplace or name.endswith("_") else dropped


DRAWS: Mapping[str, Callable[..., Tensor]] = {
    "rand": _rand, "randn": _randn, "rand_like": _rand_like, "randn_like": _randn_like, "normal": _normal,
    "normal_": _normal_, "log_normal_": _log_normal_, "uniform_": _uniform_, "exponential_": _exponential_,
    "cauchy_": _cauchy_, "geometric_": _geometric_, "bernoulli": _bernoulli, "bernoulli_": _bernoulli_,
    "randint": _randint, "randint_like": _randint_like, "randperm": _randperm, "multinomial": _multinomial,
    "gumbel_softmax": _gumbel_softmax,
}  # fmt: skip
"""By the name that a torch function has in a call of it."""
