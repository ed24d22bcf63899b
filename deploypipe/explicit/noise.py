"""A module that takes the noise of its random numbers as the argument `noise`: a list, a tensor a draw, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deploypipe.contract.call import Call
from deploypipe.contract.signature import Axes
from deploypipe.contract.sizes import Axis, broken_limits, parse_axis
from deploypipe.eager import input_names, reference_copy, resized, title_of
from deploypipe.errors import ExportError
from deploypipe.explicit.draws import Noise, draw
from deploypipe.flat_module import dynamic_by_name, flat_call
from deploypipe.torch_compat.around import Around
from deploypipe.torch_compat.operators import draws_random_numbers

GIVEN = (torch.float32, torch.float64)
"""Dtypes of noise. For a draw in another dtype it is rounded."""
OTHER_SIZES = (3, 4, 5, 6, 7, 8, 2, 1)
"""Of which the first two that eager takes say how the sizes of noise follow a dynamic axis."""


class WithNoise(Around):
    """Every random number in it comes from its argument."""

    def run(self, noise: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        given = _Given(noise, self)
        with _Drawing(given, self):
            outputs = self.author(*args, **kwargs)
        if given.remaining():
            raise _varies(self)
        return outputs


def noise_of(module: nn.Module, call: Call, dynamic: Axes) -> tuple[list[Tensor], list[Mapping[int, str]]]:
    """Noise for a call of the module, drawn from a generator of its own, and the dynamic axes of each tensor of it.
    ExportError where an axis follows the input in a way that no multiple of a dynamic axis says."""
    flat = flat_call(reference_copy(module), call)
    example = tuple(tensor.detach().cpu() for tensor in flat.inputs)
    drawn = _drawn(flat.module, example)
    names = input_names(flat.module, example)
    named = dynamic_by_name(dynamic, flat.form.paths(), names)
    axes: list[dict[int, str]] = [{} for _ in drawn]
    for written in _symbols(named):
        for i, place, multiple in _following(flat.module, example, names, named, written, drawn):
            if place in axes[i]:
                raise _unclear(module, i, place)
            axes[i][place] = written.symbol if multiple == 1 else f"{multiple}*{written.symbol}"
    return drawn, [dict(each) for each in axes]


def _symbols(dynamic: Axes) -> list[Axis]:
    written = [parse_axis(text) for axes in dynamic.values() for text in axes.values()]
    return list({axis.symbol: axis for axis in written}.values())


def _following(
    module: nn.Module, example: tuple[Tensor, ...], names: Sequence[str], dynamic: Axes, axis: Axis,
    drawn: Sequence[Tensor],
) -> Iterator[tuple[int, int, int]]:  # fmt: skip
    """Which axes of the noise are a multiple of this symbol: (tensor, axis, multiple)."""
    seen: list[tuple[int, list[Tensor]]] = []
    for size in OTHER_SIZES:
        if broken_limits(axis.limits, {axis.symbol: size}) or len(seen) == 2:
            continue
        try:
            seen.append((size, _drawn(module, resized(example, names, dynamic, {axis.symbol: size}))))
        except ExportError:
            raise
        except Exception:  # whatever eager says to a size that it does not take
            continue
    for _, found in seen:
        if [each.dim() for each in found] != [each.dim() for each in drawn]:
            raise _varies(module)
    if len(seen) < 2:
        return
    (one, first), (other, second) = seen
    for i, shapes in enumerate(zip(first, second, strict=True)):
        for place, (a, b) in enumerate(zip(shapes[0].shape, shapes[1].shape, strict=True)):
            if a == b:
                continue
            if a % one or b != a // one * other:
                raise _unclear(module, i, place)
            yield i, place, a // one


def _drawn(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    fresh = _Fresh()
    with torch.no_grad(), _Drawing(fresh, module):
        module(*(tensor.clone() for tensor in inputs))
    return fresh.drawn


class _Drawing(TorchFunctionMode):
    """Inside, torch's random numbers are functions of noise."""

    def __init__(self, noise: Noise, module: nn.Module) -> None:
        super().__init__()
        self.noise, self.module = noise, module

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if not draws_random_numbers(name, args, kwargs):
            return func(*args, **kwargs)
        try:
            return draw(name, self.noise, args, kwargs)
        except KeyError as cause:
            raise ExportError(
                f"{title_of(self.module)}.forward draws random numbers by torch.{name}, which has no form that takes"
                " its noise as an input",
                "Pass what it draws in as an input of forward.",
            ) from cause


class _Fresh:
    """New noise, and a list of it."""

    def __init__(self) -> None:
        self.drawn: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(0)

    def normal(self, shape: Sequence[Any], dtype: torch.dtype) -> Tensor:
        return self._kept(torch.randn, shape, dtype)

    def uniform(self, shape: Sequence[Any], dtype: torch.dtype) -> Tensor:
        return self._kept(torch.rand, shape, dtype)

    def _kept(self, made: Any, shape: Sequence[Any], dtype: torch.dtype) -> Tensor:
        of = dtype if dtype in GIVEN else torch.float32
        noise: Tensor = made(tuple(shape), dtype=of, generator=self._generator)
        self.drawn.append(noise)
        return _as(noise.clone(), dtype)


class _Given:
    """Noise that is an input."""

    def __init__(self, noise: Sequence[Tensor], module: nn.Module) -> None:
        self._noise, self._module = list(noise), module

    def remaining(self) -> int:
        return len(self._noise)

    def normal(self, shape: Sequence[Any], dtype: torch.dtype) -> Tensor:
        return self._next(dtype)

    def uniform(self, shape: Sequence[Any], dtype: torch.dtype) -> Tensor:
        return self._next(dtype)

    def _next(self, dtype: torch.dtype) -> Tensor:
        if not self._noise:
            raise _varies(self._module)
        return _as(self._noise.pop(0).clone(), dtype)


def _as(noise: Tensor, dtype: torch.dtype) -> Tensor:
    """In the dtype of the draw; as it is where the whole module runs in float64, which the noise then has too."""
    return noise if dtype in GIVEN else noise.to(dtype)


def _varies(module: nn.Module) -> ExportError:
    return ExportError(
        f"{title_of(module)}.forward draws random numbers in a branch or a loop that depends on the input: how much"
        " noise a call needs is not known before it",
        "Draw before the branch or the loop, or pass what it draws in as an input of forward.",
    )


def _unclear(module: nn.Module, number: int, axis: int) -> ExportError:
    return ExportError(
        f"{title_of(module)}.forward: axis {axis} of random draw {number} follows the input, and is no multiple of one"
        " dynamic axis",
        'Declare the axis as a multiple ("8*h"), or pass what is drawn in as an input of forward.',
    )
