"""LSTM, GRU and RNN as one operator each while a program is traced.

Torch finds the shapes of their outputs by unrolling the sequence, which makes a constant of its length; here a rule for
the shapes takes that place, so that the length stays open. Packed sequences have such rules too: how many rows the
longest sequences share is known when the program runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._decomp import decomposition_table as _table
from torch._ops import OpOverload

aten: Any = torch.ops.aten
decomposition_table: dict[Any, Callable[..., Any]] = _table
LSTMS: tuple[OpOverload[..., Any], ...] = (aten.lstm.input,)
OTHERS: tuple[OpOverload[..., Any], ...] = (aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
_KEYS = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)


def _lstm(unrolled: Callable[..., Any]) -> Callable[..., Any]:
    def shapes(
        x: Tensor, hx: list[Tensor], params: list[Tensor], has_biases: bool, layers: int, dropout: float, train: bool,
        bidirectional: bool, batch_first: bool,
    ) -> Any:  # fmt: skip
        hidden, cell = hx
        if hidden.shape[-1] != cell.shape[-1]:  # of a projection ONNX has none
            return unrolled(x, hx, params, has_biases, layers, dropout, train, bidirectional, batch_first)
        return _outputs(x, hidden, bidirectional), torch.empty_like(hidden), torch.empty_like(cell)

    return shapes


def _other(unrolled: Callable[..., Any]) -> Callable[..., Any]:
    def shapes(
        x: Tensor, hx: Tensor, params: list[Tensor], has_biases: bool, layers: int, dropout: float, train: bool,
        bidirectional: bool, batch_first: bool,
    ) -> Any:  # fmt: skip
        return _outputs(x, hx, bidirectional), torch.empty_like(hx)

    return shapes


def _outputs(x: Tensor, hidden: Tensor, bidirectional: bool) -> Tensor:
    return x.new_empty([*x.shape[:2], hidden.shape[-1] * (2 if bidirectional else 1)])


@contextlib.contextmanager
def sequences_stay_open() -> Iterator[None]:
    """Inside, the recurrent operators are not unrolled."""
    held = [(operator, dict(operator.py_kernels)) for operator in (*LSTMS, *OTHERS)]
    unrolled = {operator: kernels[DispatchKey.CompositeImplicitAutograd] for operator, kernels in held}
    rules = {operator: (_lstm if operator in LSTMS else _other)(unroll) for operator, unroll in unrolled.items()}
    for operator, kernels in held:
        _replace(operator, {**kernels, **dict.fromkeys(_KEYS, rules[operator])})
    decomposition_table.update(rules)
    try:
        yield
    finally:
        decomposition_table.update(unrolled)
        for operator, kernels in held:
            _replace(operator, kernels)


def _replace(operator: OpOverload[..., Any], kernels: dict[Any, Callable[..., Any]]) -> None:
    operator.py_kernels.clear()
    operator.py_kernels.update(kernels)
    operator._dispatch_cache.clear()
