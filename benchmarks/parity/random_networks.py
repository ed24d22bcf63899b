"""Ordinary networks, drawn at random: what people build from layers of torch.nn, with and without control flow.

A number gives a network, another one its weights and its example; nothing is chosen for being hard or easy to export.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Hardswish, nn.Mish, nn.SELU,
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    dynamic: dict[str, dict[int, str]]


class Vector(nn.Module):
    """Linear layers, normalised or not, with residual connections or without."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.blocks, self.residual = nn.ModuleList(), draw.random() < 0.4
        for _ in range(draw.randint(1, 4)):
            norm = draw.choice([nn.Identity, nn.LayerNorm, nn.BatchNorm1d, nn.RMSNorm])
            layer = nn.Linear(width, width, bias=draw.random() < 0.7)
            self.blocks.append(nn.Sequential(layer, norm(width), draw.choice(ACTIVATIONS)(), nn.Dropout(0.1)))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x) if self.residual else block(x)
        return x


class Image(nn.Module):
    """Convolutions, normalisations and pooling, down to a vector."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for _ in range(draw.randint(1, 3)):
            after, kernel = draw.choice([4, 8]), draw.choice([1, 3, 5])
            layers.append(nn.Conv2d(before, after, kernel, draw.choice([1, 2]), kernel // 2, bias=draw.random() < 0.7))
            norms: list[nn.Module] = [
                nn.Identity(), nn.BatchNorm2d(after), nn.GroupNorm(2, after), nn.InstanceNorm2d(after, affine=True),
            ]  # fmt: skip
            layers += [draw.choice(norms), draw.choice(ACTIVATIONS)()]
            before = after
        layers.append(draw.choice([nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")]))
        self.layers, self.out = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(before, width)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.out(self.layers(x))
        return answer


class Sequence(nn.Module):
    """Vectors in a row through recurrence, attention or convolution, and their mean, last or largest."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.kind = draw.choice(["lstm", "gru", "rnn", "encoder", "attention", "conv"])
        self.pool = draw.choice(["mean", "last", "max"])
        layers, both = draw.randint(1, 2), draw.random() < 0.5
        recurrent: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
        self.layer: nn.Module
        if self.kind in recurrent:
            self.layer = recurrent[self.kind](width, width, layers, batch_first=True, bidirectional=both)
        elif self.kind == "encoder":
            self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True, norm_first=both)
        elif self.kind == "attention":
            self.layer = nn.MultiheadAttention(width, 2, batch_first=True)
        else:
            self.layer = nn.Conv1d(width, width, 3, padding=1)
        self.out = nn.LazyLinear(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "conv":
            h = self.layer(x.transpose(1, 2)).transpose(1, 2)
        elif self.kind == "attention":
            h = self.layer(x, x, x)[0]
        else:
            h = self.layer(x)
            h = h[0] if isinstance(h, tuple) else h
        pooled = h.mean(1) if self.pool == "mean" else h[:, -1] if self.pool == "last" else h.amax(1)
        answer: Tensor = self.out(pooled)
        return answer


class Head(nn.Module):
    """What a model answers with."""

    def __init__(self, draw: random.Random, width: int) -> None:
        super().__init__()
        self.kind = draw.choice(["plain", "softmax", "log_softmax", "sigmoid", "topk", "classes", "unit", "several"])
        self.out = nn.Linear(width, draw.choice([2, 5, 10]), bias=draw.random() < 0.8)

    def forward(self, x: Tensor) -> Any:
        y = self.out(x)
        if self.kind == "softmax":
            return y.softmax(-1)
        if self.kind == "log_softmax":
            return y.log_softmax(-1)
        if self.kind == "sigmoid":
            return y.sigmoid()
        if self.kind == "topk":
            return y.softmax(-1).topk(2)
        if self.kind == "classes":
            return y.argmax(-1)
        if self.kind == "unit":
            return nn.functional.normalize(y, dim=-1)
        if self.kind == "several":
            return {"logits": y, "features": x, "score": y.std(-1)}
        return y


class Plain(nn.Module):
    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


class Branches(Plain):
    def forward(self, x: Tensor) -> Any:
        h = self.body(x)
        h = h * 2 if x.mean() > 0 else h - 1
        return self.head(h)


class ShrinksUntilSmall(Plain):
    def forward(self, x: Tensor) -> Any:
        h, steps = self.body(x), 0
        while h.abs().max() > 1 and steps < 20:
            h, steps = h / 2, steps + 1
        return self.head(h)


class RepeatsBySize(Plain):
    def forward(self, x: Tensor) -> Any:
        h = self.body(x)
        for _ in range(min(x.shape[0], 4)):
            h = torch.tanh(h) + h / 2
        return self.head(h)


class LeavesEarly(Plain):
    def forward(self, x: Tensor) -> Any:
        h = self.body(x)
        if h.sum() > 5:
            return self.head(h.relu())
        return self.head(h)


def network(number: int) -> Network:
    """The network of this number, with its weights and its example."""
    draw = random.Random(number)
    torch.manual_seed(1000 * number)
    kind = draw.choice([Vector, Image, Sequence])
    flow = draw.choice([Plain, Plain, Branches, ShrinksUntilSmall, RepeatsBySize, LeavesEarly])
    width = draw.choice([4, 8])
    rows = draw.randint(2, 4)
    if kind is Vector:
        inputs, dynamic = torch.randn(rows, width), {0: "batch"}
    elif kind is Image:
        inputs, dynamic = torch.randn(rows, 3, 12, 12), {0: "batch"}
    else:
        inputs, dynamic = torch.randn(rows, 6, width), {0: "batch", 1: "length"}
    body, head = kind(draw, width), Head(draw, width)
    module = flow(body, head).train()
    with torch.no_grad():
        for _ in range(3):  # shapes for lazy layers, and statistics for batch norms
            module(inputs + torch.randn_like(inputs))
    parts = [kind.__name__, flow.__name__, head.kind, *([body.kind] if isinstance(body, Sequence) else [])]
    return Network(f"{number} {' '.join(parts)}", module.eval(), (inputs,), {"x": dynamic})
