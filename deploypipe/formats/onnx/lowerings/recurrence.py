"""LSTM, GRU and RNN: ONNX has an operator for each, whose gates stand in another order.

Torch's exporter has no translation of `rnn_tanh` and `rnn_relu`, and unrolls them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnxscript import ir

from deploypipe.formats.onnx.lowerings.values import literal, op, reshape

aten = torch.ops.aten
INT32, INT64 = ir.DataType.INT32, ir.DataType.INT64


@dataclass(frozen=True)
class Kind:
    """A recurrent layer, as one of torch and as one of ONNX."""

    layer: Callable[..., Any]
    """The ONNX operator."""
    gates: tuple[int, ...]
    """For each gate of ONNX, which one of torch's it is."""


LSTM = Kind(op.LSTM, (0, 3, 1, 2))  # i, o, f, c of i, f, c, o
GRU = Kind(lambda *args, **kwargs: op.GRU(*args, linear_before_reset=1, **kwargs), (1, 0, 2))  # z, r, h of r, z, h
TANH = Kind(op.RNN, (0,))


def _relu(*args: Any, direction: str, **kwargs: Any) -> Any:
    names = ["Relu"] * (2 if direction == "bidirectional" else 1)
    return op.RNN(*args, direction=direction, activations=names, **kwargs)


RELU = Kind(_relu, (0,))


def _reordered(weight: Any, gates: Sequence[int]) -> Any:
    if len(gates) == 1:
        return weight
    parts = op.Split(weight, num_outputs=len(gates), axis=0)
    return op.Concat(*(parts[gate] for gate in gates), axis=0)


def _stacked(values: Sequence[Any]) -> Any:
    return op.Concat(*(op.Unsqueeze(value, literal([0])) for value in values), axis=0)


def _run(
    kind: Kind,
    x: Any,
    states: Sequence[Any],
    params: Sequence[Any],
    has_biases: bool,
    layers: int,
    bidirectional: bool,
    lengths: Any = None,
) -> tuple[Any, ...]:
    """`x` is [time, batch, features], each state [layers × directions, batch, hidden]; so is what comes back: the
    outputs, and each state after the last step. `lengths`, int32 [batch], where rows end earlier."""
    directions = 2 if bidirectional else 1
    each = 4 if has_biases else 2
    ends: list[list[Any]] = [[] for _ in states]
    for layer in range(layers):
        own = [params[(layer * directions + d) * each :][:each] for d in range(directions)]
        weights = _stacked([_reordered(w[0], kind.gates) for w in own])
        recurrent = _stacked([_reordered(w[1], kind.gates) for w in own])
        biases = None
        if has_biases:
            biases = _stacked([op.Concat(*(_reordered(b, kind.gates) for b in w[2:]), axis=0) for w in own])
        first, last = literal([layer * directions]), literal([(layer + 1) * directions])
        starts = [op.Slice(state, first, last, literal([0])) for state in states]
        outputs = kind.layer(
            x, weights, recurrent, biases, lengths, *starts,
            hidden_size=own[0][1].shape[1],
            direction="bidirectional" if bidirectional else "forward",
        )  # fmt: skip
        # [time, directions, batch, hidden] → [time, batch, directions × hidden]
        x = reshape(op.Transpose(outputs[0], perm=[0, 2, 1, 3]), _merged(outputs[0], own[0][1].shape[1] * directions))
        for found, end in zip(ends, outputs[1:], strict=False):
            found.append(end)
    return x, *(op.Concat(*found, axis=0) if len(found) > 1 else found[0] for found in ends)


def _merged(outputs: Any, width: int) -> Any:
    return op.Concat(op.Shape(outputs, start=0, end=1), op.Shape(outputs, start=2, end=3), literal([width]), axis=0)


def _turned(value: Any, batch_first: bool, rank: int = 3) -> Any:
    return op.Transpose(value, perm=[1, 0, *range(2, rank)]) if batch_first else value


def _never_empty(value: Any, rows: Any) -> Any:
    """[…, rows, …] with one row of zeros where it has none: on an empty batch ONNX Runtime ends the whole process."""
    missing = op.Cast(op.Equal(rows, literal([0])), to=INT64)
    return op.Pad(value, op.Concat(literal([0, 0, 0, 0]), missing, literal([0]), axis=0))


def _padded(kind: Kind) -> Callable[..., Any]:
    def translation(
        input: Any, hx: Any, params: Sequence[Any], has_biases: bool, num_layers: int, dropout: float, train: bool,
        bidirectional: bool, batch_first: bool,
    ) -> Any:  # fmt: skip
        states = list(hx) if kind is LSTM else [hx]
        x = _turned(input, batch_first)
        rows = op.Shape(x, start=1, end=2)
        may_be_empty = not isinstance(input.shape[0 if batch_first else 1], int)
        if may_be_empty:
            x, *states = (_never_empty(value, rows) for value in (x, *states))
        found = _run(kind, x, states, params, has_biases, num_layers, bidirectional)
        if may_be_empty:
            found = tuple(op.Slice(value, literal([0]), rows, literal([1])) for value in found)
        return _turned(found[0], batch_first), *found[1:]

    return translation


# -- packed sequences: values in the order of time, at each step those of the rows that are that long; the longest first


def _rows_that_go_on(batch_sizes: Any, rows: Any) -> Any:
    """Bool [time, batch]: whether a row has a value at a step. `rows` is their number, a vector of one."""
    numbers = op.Range(literal(0), op.Squeeze(rows, literal([0])), literal(1))
    return op.Less(op.Unsqueeze(numbers, literal([0])), op.Unsqueeze(batch_sizes, literal([1])))


def _flat(mask: Any) -> Any:
    return op.Reshape(mask, literal([-1]))


def _spread(data: Any, mask: Any, batch_sizes: Any, rows: Any, filler: Any) -> Any:
    """Packed values [values, …] → [time, batch, …], with `filler` after the end of a row."""
    rest = op.Shape(data, start=1)
    steps = op.Shape(batch_sizes)
    full = op.Expand(filler, op.Concat(op.Mul(steps, rows), rest, axis=0))
    placed = op.ScatterND(full, op.Transpose(op.NonZero(_flat(mask)), perm=[1, 0]), data)
    return reshape(placed, op.Concat(steps, rows, rest, axis=0))


def _pack(input: Any, lengths: Any, batch_first: bool) -> Any:
    x = _turned(input, batch_first, len(input.shape))
    steps, rows = op.Shape(x, start=0, end=1), op.Shape(x, start=1, end=2)
    numbers = op.Range(literal(0), op.Squeeze(steps, literal([0])), literal(1))
    mask = op.Less(op.Unsqueeze(numbers, literal([1])), op.Unsqueeze(op.Cast(lengths, to=INT64), literal([0])))
    values = reshape(x, op.Concat(op.Mul(steps, rows), op.Shape(x, start=2), axis=0))
    sizes = op.ReduceSum(op.Cast(mask, to=INT64), literal([1]), keepdims=False)
    return (
        op.Compress(values, _flat(mask), axis=0),
        op.Compress(sizes, op.Greater(sizes, literal(0)), axis=0),
    )


def _pad_rows(data: Any, batch_sizes: Any, batch_first: bool, padding_value: float, total_length: int) -> Any:
    if total_length > 0:
        raise NotImplementedError("a packed sequence padded to a length that is a constant")
    rows = op.Slice(batch_sizes, literal([0]), literal([1]), literal([0]))
    mask = _rows_that_go_on(batch_sizes, rows)
    spread = _spread(data, mask, batch_sizes, rows, literal(padding_value, data.dtype))
    return _turned(spread, batch_first, len(data.shape) + 1), op.ReduceSum(
        op.Cast(mask, to=INT64), literal([0]), keepdims=False
    )


def _packed(kind: Kind) -> Callable[..., Any]:
    def translation(
        data: Any, batch_sizes: Any, hx: Any, params: Sequence[Any], has_biases: bool, num_layers: int, dropout: float,
        train: bool, bidirectional: bool,
    ) -> Any:  # fmt: skip
        states = list(hx) if kind is LSTM else [hx]
        rows = op.Shape(states[0], start=1, end=2)
        mask = _rows_that_go_on(batch_sizes, rows)
        x = _spread(data, mask, batch_sizes, rows, literal(0, data.dtype))
        lengths = op.ReduceSum(op.Cast(mask, to=INT32), literal([0]), keepdims=False)
        outputs, *ends = _run(kind, x, states, params, has_biases, num_layers, bidirectional, lengths)
        width = params[1].shape[1] * (2 if bidirectional else 1)
        values = reshape(outputs, op.Concat(op.Mul(op.Shape(batch_sizes), rows), literal([width]), axis=0))
        return op.Compress(values, _flat(mask), axis=0), *ends

    return translation


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    aten.lstm.input: _padded(LSTM),
    aten.gru.input: _padded(GRU),
    aten.rnn_tanh.input: _padded(TANH),
    aten.rnn_relu.input: _padded(RELU),
    aten.lstm.data: _packed(LSTM),
    aten.gru.data: _packed(GRU),
    aten.rnn_tanh.data: _packed(TANH),
    aten.rnn_relu.data: _packed(RELU),
    aten._pack_padded_sequence.default: _pack,
    aten._pad_packed_sequence.default: _pad_rows,
}
