"""An operator, exported to ONNX with a dynamic batch and held to eager on the edge values of its table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deploypipe

Forward = Callable[..., Any]
Compare = Callable[[Forward, Sequence[tuple[Tensor, ...]]], None]


class One(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.function = forward

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Two(One):
    def forward(self, x: Tensor, y: Tensor) -> Any:  # type: ignore[override]
        return self.function(x, y)


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Exports a function with its first inputs as example, and compares the artifact with eager on all of them."""

    def run(forward: Forward, inputs: Sequence[tuple[Tensor, ...]]) -> None:
        module = (One if len(inputs[0]) == 1 else Two)(forward).eval()
        dynamic = {name: {0: "batch"} for name, _ in zip("xy", inputs[0], strict=False)}
        path = tmp_path / "model.onnx"
        deploypipe.export(module, inputs[0], format="onnx", path=path, dynamic=dynamic, probes=[inputs[0]])
        runner = deploypipe.load(path)
        for given in inputs:
            with torch.no_grad():
                wanted = module(*(tensor.clone() for tensor in given))
            torch.testing.assert_close(_tuple(runner(*given)), _tuple(wanted), rtol=1e-5, atol=1e-6, equal_nan=True)

    return run


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
