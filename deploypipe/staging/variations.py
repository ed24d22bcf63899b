"""Variations of example inputs, among which some take a branch that the example does not take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

Inputs = tuple[Any, ...]


def variations(program: ExportedProgram, example: Inputs) -> Iterator[Inputs]:
    """Scaled, negated, shifted, zero and extreme values, and other sizes on the dynamic axes of the program."""
    yield from _variations(example, _symbolic_axes(program))


def _symbolic_axes(program: ExportedProgram) -> list[dict[int, str]]:
    """For each input of the program, its symbolic axes."""
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    axes: list[dict[int, str]] = []
    for name in program.graph_signature.user_inputs:
        value = placeholders[str(name)].meta.get("val") if str(name) in placeholders else None
        shape = value.shape if isinstance(value, Tensor) else ()
        axes.append({axis: str(size) for axis, size in enumerate(shape) if isinstance(size, torch.SymInt)})
    return axes


def _variations(example: Inputs, axes: list[dict[int, str]]) -> Iterator[Inputs]:
    """The example with all inputs changed alike, then one input at a time, then at other sizes."""
    yield example
    for change in CHANGES:
        yield tuple(change(t) if isinstance(t, Tensor) else t for t in example)
    if len(example) > 1:
        for position in range(len(example)):
            for change in CHANGES:
                yield tuple(change(t) if i == position and isinstance(t, Tensor) else t for i, t in enumerate(example))
    symbols = sorted({symbol for part in axes for symbol in part.values()})
    for symbol in symbols:  # a loop over an axis runs no time, or once
        for size in (0, 1):
            yield tuple(_resize(t, part, {symbol: size}) for t, part in zip(example, axes, strict=False))
    for sizes in (dict.fromkeys(symbols, n) for n in (1, 2, 3, 9, 17)):
        resized = tuple(
            _resize(t, part, sizes) for t, part in zip(example, [*axes, *[{}] * len(example)], strict=False)
        )
        yield resized
        for change in CHANGES[:4]:
            yield tuple(change(t) if isinstance(t, Tensor) else t for t in resized)


def _resize(value: Any, axes: Mapping[int, str], sizes: Mapping[str, int]) -> Any:
    for axis, symbol in axes.items():
        if symbol in sizes and value.shape[axis]:
            value = value.index_select(axis, torch.arange(sizes[symbol]) % value.shape[axis])
    return value


def _scaled(factor: float) -> Any:
    def change(value: Tensor) -> Tensor:
        if value.dtype == torch.bool:
            return value if factor > 0 else ~value
        if not value.is_floating_point():
            # Whole numbers are counts and indices: larger ones are likely out of range.
            return value if factor < 0 else (value.double() * min(factor, 4)).to(value.dtype)
        return value * factor

    return change


def _shifted(by: float) -> Any:
    def change(value: Tensor) -> Tensor:
        return value + by if value.is_floating_point() else value

    return change


def _filled(number: int) -> Any:
    def change(value: Tensor) -> Tensor:
        return torch.full_like(value, bool(number) if value.dtype == torch.bool else number)

    return change


CHANGES = [
    _scaled(-1), _filled(0), _scaled(100), _scaled(0.01), _filled(1), _shifted(3), _shifted(-3), _filled(2),
    _scaled(-100), _shifted(50), _shifted(-50), _filled(5), _scaled(1e4), _filled(-1),
]  # fmt: skip
