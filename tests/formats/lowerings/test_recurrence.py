"""LSTM, GRU and RNN for sequences of any length: no format unrolls them, and ONNX has an operator for each."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import deploypipe
from deploypipe.formats import FORMATS
from deploypipe.staging.trace import trace

LAYERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "lstm, one direction, time first": (nn.LSTM, {}),
    "lstm without biases": (nn.LSTM, {"num_layers": 2, "bias": False, "batch_first": True}),
    "gru": (nn.GRU, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "gru, time first": (nn.GRU, {"num_layers": 3}),
    "rnn of tanh": (nn.RNN, {"bidirectional": True, "batch_first": True}),
    "rnn of relu": (nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
}


class Tagger(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        kind, settings = LAYERS[name]
        self.recurrent = kind(6, 8, **settings)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = self.recurrent(x)
        return outputs, state[0][-1] + state[1] if isinstance(state, tuple) else state[-1]


class GivenState(nn.Module):
    """The state comes from outside, and goes out for the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs, (hidden, cell) = self.recurrent(x, (hidden, cell))
        return outputs, hidden, cell


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", LAYERS)
def test_a_sequence_may_be_of_any_length(name: str, tmp_path: Path) -> None:
    module = Tagger(name).eval()
    path = tmp_path / "m.onnx"
    deploypipe.export(
        module, (torch.randn(2, 7, 6),), format="onnx", path=path, dynamic={"x": {0: "rows", 1: "columns"}}
    )
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert sum(operator in ("LSTM", "GRU", "RNN") for operator in operators) == module.recurrent.num_layers
    assert not {"Loop", "Scan"} & set(operators)
    runner = deploypipe.load(path)
    empty = (0, 4, 6) if module.recurrent.batch_first else (4, 0, 6)
    for shape in ((3, 11, 6), (1, 1, 6), (5, 2, 6), empty):  # an empty batch ends a process that meets it unprepared
        x = torch.randn(shape)
        torch.testing.assert_close(runner(x), module(x), atol=1e-5, rtol=1e-5)


@pytest.mark.sample(1)
@pytest.mark.parametrize("format", [name for name in FORMATS if name != "onnx"])
def test_so_it_may_in_the_other_formats(format: str, tmp_path: Path) -> None:
    module = Tagger("gru").eval()
    path = tmp_path / f"m{FORMATS[format].suffix}"
    deploypipe.export(module, (torch.randn(2, 7, 6),), format=format, path=path, dynamic={"x": {0: "batch", 1: "time"}})
    x = torch.randn(3, 11, 6)
    torch.testing.assert_close(deploypipe.load(path)(x), module(x))


def test_a_state_is_given_and_returned(tmp_path: Path) -> None:
    module = GivenState().eval()
    example = (torch.randn(2, 7, 6), torch.randn(1, 2, 8), torch.randn(1, 2, 8))
    dynamic = {"x": {0: "batch", 1: "time"}, "hidden": {1: "batch"}, "cell": {1: "batch"}}
    deploypipe.export(module, example, format="onnx", path=tmp_path / "m.onnx", dynamic=dynamic)
    given = (torch.randn(3, 4, 6), torch.randn(1, 3, 8), torch.randn(1, 3, 8))
    torch.testing.assert_close(deploypipe.load(tmp_path / "m.onnx")(*given), module(*given), atol=1e-5, rtol=1e-5)


PACKED: dict[str, tuple[type[nn.Module], dict[str, Any], dict[str, Any], bool]] = {
    "lstm, padded back to the input's length": (nn.LSTM, {"bidirectional": True, "num_layers": 2}, {}, True),
    "lstm, to the longest row": (nn.LSTM, {}, {}, False),
    "gru": (nn.GRU, {"bidirectional": True}, {}, True),
    "rnn": (nn.RNN, {"nonlinearity": "relu"}, {}, False),
    "sorted by the caller": (nn.GRU, {}, {"enforce_sorted": True}, False),
}


class Packed(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        kind, settings, self.how, self.whole = PACKED[name]
        self.recurrent = kind(4, 3, batch_first=True, **settings)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, **{"enforce_sorted": False, **self.how})
        outputs, state = self.recurrent(packed)
        total = x.shape[1] if self.whole else None
        padded, counted = pad_packed_sequence(outputs, batch_first=True, total_length=total, padding_value=-1.0)
        return padded, state[0] if isinstance(state, tuple) else state, counted


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("name", "format"),
    [
        pytest.param(name, format, marks=[pytest.mark.nightly] if place and format != "onnx" else [])
        for place, name in enumerate(PACKED)
        for format in FORMATS
    ],
)
def test_rows_of_different_lengths_are_packed(name: str, format: str, tmp_path: Path) -> None:
    module = Packed(name).eval()
    path = tmp_path / f"m{FORMATS[format].suffix}"
    example = (torch.randn(3, 5, 4), torch.tensor([5, 3, 2]))
    probes = [example, (torch.randn(2, 6, 4), torch.tensor([4, 1])), (torch.randn(1, 2, 4), torch.tensor([2]))]
    dynamic = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    deploypipe.export(module, example, format=format, path=path, dynamic=dynamic, probes=probes)
    runner = deploypipe.load(path)
    for lengths in ([7, 7, 2, 1], [1], [3, 1]) if module.how else ([2, 7, 1, 7], [1], [1, 3]):
        given = (torch.randn(len(lengths), 7, 4), torch.tensor(lengths))
        torch.testing.assert_close(runner(*given), module(*given), atol=1e-5, rtol=1e-5)


def test_a_projection_is_unrolled_at_the_length_of_the_example() -> None:
    module = nn.LSTM(6, 8, proj_size=3)
    captured = trace(module, (torch.randn(7, 2, 6),), {"input": {1: "batch"}})
    x = torch.randn(7, 3, 6)
    found = captured.program.module()(x)
    torch.testing.assert_close(found[0], module(x)[0])
