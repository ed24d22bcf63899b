"""LSTM, GRU and RNN as one operator each while a program is traced.

Torch finds the shapes of their outputs by unrolling the sequence, which makes a constant of its length; here a rule for
the shapes takes that place, so that the length stays open, of packed sequences too (`packed.py`).
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

from deploypipe.torch_compat.packed import KEYS, packed_sequences, replace_kernels

aten: Any = torch.ops.aten
decomposition_table: dict[Any, Callable[..., Any]] = _table
LSTMS: tuple[OpOverload[..., Any], ...] = (aten.lstm.input,)
OTHERS: tuple[OpOverload[..., Any], ...] = (aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
PACKED: tuple[OpOverload[..., Any], ...] = (aten.lstm.data, aten.gru.data, aten.rnn_tanh.data, aten.rnn_relu.data)


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


def _other(
    x: Tensor, hx: Tensor, params: list[Tensor], has_biases: bool, layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool,
) -> Any:  # fmt: skip
    return _outputs(x, hx, bidirectional), torch.empty_like(hx)


def _packed(
    data: Tensor, batch_sizes: Tensor, hx: Any, params: list[Tensor], has_biases: bool, layers: int, dropout: float,
    train: bool, bidirectional: bool,
) -> Any:  # fmt: skip
    states = hx if isinstance(hx, list | tuple) else [hx]
    outputs = data.new_empty([data.shape[0], states[0].shape[-1] * (2 if bidirectional else 1)])
    return outputs, *(torch.empty_like(state) for state in states)


def _outputs(x: Tensor, hidden: Tensor, bidirectional: bool) -> Tensor:
    return x.new_empty([*x.shape[:2], hidden.shape[-1] * (2 if bidirectional else 1)])


@contextlib.contextmanager
def sequences_stay_open() -> Iterator[None]:
    """Inside, the recurrent operators are not unrolled."""
    held = [(operator, dict(operator.py_kernels)) for operator in (*LSTMS, *OTHERS, *PACKED)]
    unrolled = {operator: kernels[DispatchKey.CompositeImplicitAutograd] for operator, kernels in held}
    rules: dict[Any, Callable[..., Any]] = {
        **{operator: _lstm(unrolled[operator]) for operator in LSTMS},
        **dict.fromkeys(OTHERS, _other),
        **dict.fromkeys(PACKED, _packed),
    }
    for operator, kernels in held:
        replace_kernels(operator, {**kernels, **dict.fromkeys(KEYS, rules[operator])})
    decomposition_table.update(rules)
    try:
        with packed_sequences():
            yield
    finally:
        decomposition_table.update(unrolled)
        for operator, kernels in held:
            replace_kernels(operator, kernels)
