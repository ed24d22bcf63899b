"""The dynamic axes of a trace: examples of fitting sizes, torch's symbols for them, and what became of those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from deploypipe.contract.signature import Axes
from deploypipe.contract.sizes import Axis, parse_axis
from deploypipe.eager import resized
from deploypipe.errors import ExportError
from deploypipe.staging.selection import EVERYTHING, Selection
from deploypipe.torch_compat.symbols import symbol_name

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29)


@dataclass(frozen=True)
class OpenSymbols:
    """Which positions of the arguments have a dynamic axis: (argument, axis, what the author calls it)."""

    places: tuple[tuple[int, int, Axis], ...]

    def bind(self, args: Sequence[Any]) -> dict[str, Axis]:
        """torch's symbol for each axis. Axes of one symbol are made one size, before anything is asked of them."""
        found: dict[str, Axis] = {}
        first: dict[str, tuple[Any, Axis]] = {}
        for position, axis, written in self.places:
            size = args[position].shape[axis]
            name = symbol_name(size)
            if name is not None:
                found[name] = written
            other, its = first.setdefault(written.symbol, (size, written))
            if other is not size:
                torch._check(other * written.multiple == size * its.multiple)
        return found


def open_symbols(names: Sequence[str], dynamic: Axes) -> OpenSymbols:
    return OpenSymbols(
        tuple(
            (position, axis, parse_axis(written))
            for position, name in enumerate(names)
            for axis, written in dynamic.get(name, {}).items()
        )
    )


def open_axes(
    inputs: tuple[Any, ...], names: Sequence[str], dynamic: Axes, selection: Selection
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The example at a size for each symbol that no other has, so that nothing is concluded from sizes that happen to
    agree; and the axes as `torch.export` takes them."""
    everything = selection is EVERYTHING
    axes = {name: {axis: parse_axis(written) for axis, written in dynamic.get(name, {}).items()} for name in names}
    values = _primes(axes) if everything else _near_the_example(inputs, names, axes)
    dims = {symbol: Dim(symbol, min=0) for symbol in values} if everything else {}
    made = tuple(
        value.detach().clone() if isinstance(value, Tensor) else value
        for value in resized(inputs, names, dynamic, values)
    )
    return made, tuple({axis: _dim(written, dims) for axis, written in axes[name].items()} or None for name in names)


def _dim(axis: Axis, dims: Mapping[str, Any]) -> Any:
    if not dims:
        return Dim.AUTO
    return dims[axis.symbol] if axis.multiple == 1 else axis.multiple * dims[axis.symbol]


def _primes(axes: Mapping[str, Mapping[int, Axis]]) -> dict[str, int]:
    symbols = list(dict.fromkeys(axis.symbol for each in axes.values() for axis in each.values()))
    return {s: PRIMES[i % len(PRIMES)] + 30 * (i // len(PRIMES)) for i, s in enumerate(symbols)}


def _near_the_example(
    inputs: Sequence[Any], names: Sequence[str], axes: Mapping[str, Mapping[int, Axis]]
) -> dict[str, int]:
    """The example's own sizes: kernels fit, tables are long enough. A size of 0 or 1, and one that another symbol has
    already, says too much: it is replaced by a size that it divides."""
    chosen: dict[str, int] = {}
    for name, value in zip(names, inputs, strict=True):
        for position, axis in axes[name].items():
            if axis.symbol in chosen:
                continue
            own = value.shape[position] // axis.multiple
            candidates = [own * factor for factor in (1, 2, 3, 5, 7, 11)] if own > 1 else list(PRIMES)
            if axis.largest is not None:
                candidates += list(range(axis.largest, max(1, axis.smallest or 2) - 1, -1))
            fitting = [c for c in candidates if c not in chosen.values() and _allowed(axis, c)]
            chosen[axis.symbol] = fitting[0] if fitting else max(own, 2)
    return chosen


def _allowed(axis: Axis, value: int) -> bool:
    return (axis.smallest or 0) <= value and (axis.largest is None or value <= axis.largest)


def check_open(program: ExportedProgram, names: Sequence[str], dynamic: Axes, where: str) -> None:
    """ExportError where an axis that was declared dynamic came out as a constant."""
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    for name, node_name in zip(names, program.graph_signature.user_inputs, strict=False):
        for axis, symbol in dynamic.get(name, {}).items():
            value = placeholders[str(node_name)].meta["val"]
            if not isinstance(value.shape[axis], torch.SymInt):
                raise ExportError(
                    f"{where}: axis {axis} (`{symbol}`) of input `{name}` was asked to be dynamic"
                    f" and came out as the constant {value.shape[axis]}",
                    "Look for a size that is used as a constant in forward.",
                )
