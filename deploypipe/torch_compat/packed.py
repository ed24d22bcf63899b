"""Packed sequences while a program is traced: `pack_padded_sequence`, recurrent layers over it, `pad_packed_sequence`.

Torch has no rule for the shapes of what it packs, and asks a packed batch for numbers that only data say: how many rows
it has (`int(batch_sizes[0])`), though the batch that was packed says so too, and how long its longest row is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import _VF, Tensor, nn
from torch._C import DispatchKey
from torch._ops import OpOverload
from torch._subclasses.fake_impls import _deregister_op_impl, op_implementations_dict, register_op_impl
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils.rnn import PackedSequence

aten: Any = torch.ops.aten
KEYS = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)
"""Where an operator that is made of others is decomposed."""
PACK, PAD = aten._pack_padded_sequence.default, aten._pad_packed_sequence.default
LAYERS: dict[type[nn.Module], Callable[..., Any]] = {
    nn.LSTM: lambda layer: _VF.lstm,
    nn.GRU: lambda layer: _VF.gru,
    nn.RNN: lambda layer: _VF.rnn_tanh if layer.nonlinearity == "tanh" else _VF.rnn_relu,
}
_ROWS: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""By the shape environment of a trace, and the symbol of the longest row: how many rows were packed."""


@contextlib.contextmanager
def packed_sequences() -> Iterator[None]:
    """Inside, packed sequences can be traced."""
    held, kernels = op_implementations_dict.get(PACK), dict(PAD.py_kernels)
    _deregister_op_impl(PACK)
    register_op_impl(PACK)(_shapes_packed)
    replace_kernels(PAD, {**kernels, **dict.fromkeys(KEYS, _shapes_padded)})
    originals: dict[Any, Any] = {kind: kind.forward for kind in LAYERS}
    for kind, original in originals.items():
        kind.forward = _over_packed(kind, original)
    vars(_VF)["_pad_packed_sequence"] = _pad
    try:
        yield
    finally:
        del vars(_VF)["_pad_packed_sequence"]
        for kind, original in originals.items():
            kind.forward = original
        replace_kernels(PAD, kernels)
        _deregister_op_impl(PACK)
        if held is not None:
            register_op_impl(PACK)(held)


def replace_kernels(operator: OpOverload[..., Any], kernels: dict[Any, Callable[..., Any]]) -> None:
    """What the operator does under Python's dispatcher."""
    operator.py_kernels.clear()
    operator.py_kernels.update(kernels)
    operator._dispatch_cache.clear()


def _shapes_packed(mode: Any, func: Any, x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    rows, steps = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
    values, longest = mode.shape_env.create_unbacked_symint(), mode.shape_env.create_unbacked_symint()
    torch._check(values >= 1)
    torch._check(longest >= 1)
    torch._check(longest <= steps)
    _ROWS.setdefault(mode.shape_env, {})[str(longest)] = rows
    with mode:
        return x.new_empty([values, *x.shape[2:]]), torch.empty([longest], dtype=torch.int64)


def _shapes_padded(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[Tensor, Tensor]:
    rows = _rows_of(batch_sizes)
    if rows is None:
        raise NotImplementedError("a packed sequence that comes from outside of what is traced")
    steps = total_length if total_length > 0 else batch_sizes.shape[0]
    leading = [rows, steps] if batch_first else [steps, rows]
    return data.new_empty([*leading, *data.shape[1:]]), batch_sizes.new_empty([rows])


def _rows_of(batch_sizes: Tensor) -> Any:
    """How many rows were packed; None where that is not known, as of tensors that are none of a trace."""
    if not isinstance(batch_sizes, FakeTensor):
        return None
    return _ROWS.get(batch_sizes.fake_mode.shape_env, {}).get(str(batch_sizes.shape[0]))


def _pad(data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: Any) -> Any:
    """The operator takes a plain number for the length: it pads to the longest row, and the rest follows."""
    if not isinstance(batch_sizes, FakeTensor):
        return torch._C._VariableFunctions._pad_packed_sequence(
            data, batch_sizes, batch_first, padding_value, total_length
        )
    padded, lengths = PAD(data, batch_sizes, batch_first, padding_value, -1)
    more = total_length - batch_sizes.shape[0]
    if isinstance(more, int) and more == 0:
        return padded, lengths
    after = [0, 0] * (padded.dim() - (2 if batch_first else 1)) + [0, more]
    return F.pad(padded, after, value=padding_value), lengths


def _over_packed(kind: type[nn.Module], original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        rows = _rows_of(input.batch_sizes) if isinstance(input, PackedSequence) else None
        if rows is None or self.proj_size > 0:
            return original(self, input, hx)
        data, batch_sizes, ordered, restored = input
        if hx is None:
            layers = self.num_layers * (2 if self.bidirectional else 1)
            zeros = data.new_zeros([layers, rows, self.hidden_size])
            hx = (zeros, zeros) if kind is nn.LSTM else zeros
        else:
            hx = self.permute_hidden(hx, ordered)
        outputs, *states = LAYERS[kind](self)(
            data, batch_sizes, hx, self._flat_weights, self.bias, self.num_layers, self.dropout, self.training,
            self.bidirectional,
        )  # fmt: skip
        state = tuple(states) if kind is nn.LSTM else states[0]
        return PackedSequence(outputs, batch_sizes, ordered, restored), self.permute_hidden(state, restored)

    forward.__module__ = original.__module__
    return forward
