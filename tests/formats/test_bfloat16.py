"""bfloat16 in ONNX: ONNX Runtime has few kernels of it, so that operators compute between casts."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import deploypipe
from deploypipe.formats.onnx.bfloat16 import computes_in_bfloat16
from deploypipe.formats.onnx.write import CASTS_SAID


class Autocast(nn.Module):
    """Weights, input and output are float32."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.b(torch.relu(self.a(x))).float().softmax(-1)


class Block(nn.Module):
    """Attention, convolution and what gives two results."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(20, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.convolution = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(ids)
        normed = self.norm(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        x = x + self.convolution(x.transpose(1, 2)).transpose(1, 2)
        return x.float().mean(1), x.max(1).values


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while x.abs().sum() > 4:
            x = x * 0.5
        if x.sum() > 0:  # noqa: SIM108 - the form that is tested
            y = x * 2
        else:
            y = x - 1
        y += 1
        return y


NARROW = torch.bfloat16
CASES = {
    "autocast": (Autocast, (torch.randn(2, 8),), {"x": {0: "n"}}, [(torch.randn(5, 8),)]),
    "all of it": (Block, (torch.randint(20, (2, 5)),), {"ids": {0: "n", 1: "t"}}, [(torch.randint(20, (3, 7)),)]),
    "in and out": (lambda: nn.Sequential(nn.Linear(8, 4), nn.GELU()), (torch.randn(2, 8).to(NARROW),),
                   {"input": {0: "n"}}, [(torch.randn(3, 8).to(NARROW),)]),
    "control flow": (Branches, (torch.ones(3, dtype=NARROW),), None,
                     [(torch.full((3,), 9.0, dtype=NARROW),), (-torch.ones(3, dtype=NARROW),)]),
}  # fmt: skip


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", CASES)
def test_it_is_carried_and_said(case: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, example, dynamic, others = CASES[case]
    module = make().eval()
    if case != "autocast":
        module = module.to(NARROW)
    path = tmp_path / "m.onnx"
    artifact = deploypipe.export(module, example, format="onnx", path=path, dynamic=dynamic)
    assert artifact.provenance["how"] == CASTS_SAID
    runner = deploypipe.load(path)
    for inputs in [example, *others]:
        with torch.no_grad():
            want, got = module(*inputs), runner(*inputs)
        torch.testing.assert_close(got, want, atol=2e-2, rtol=2e-2)  # of eight bits


def test_weights_stay_as_they_are(tmp_path: Path) -> None:
    module = nn.Linear(8, 4).to(NARROW).eval()
    deploypipe.export(module, (torch.randn(2, 8).to(NARROW),), format="onnx", path=tmp_path / "m.onnx")
    held = {each.name: each.data_type for each in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert held["weight"] == onnx.TensorProto.BFLOAT16


def test_other_programs_are_left_alone() -> None:
    program = torch.export.export(nn.Linear(8, 4), (torch.randn(2, 8),))
    assert not computes_in_bfloat16(program)
