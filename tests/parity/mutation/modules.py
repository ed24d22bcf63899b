"""The honest modules: small, and together they hold what exporters get wrong."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Colours(nn.Module):
    """Images `float32 [batch, 3, 8, 8]` to logits `float32 [batch, 5]`, through the layers whose attributes exporters
    mistake: padding, ceiling, interpolation, slopes, epsilons, dropout and batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6, eps=1e-3)
        self.slope = nn.LeakyReLU(0.1)
        self.mean = nn.AvgPool2d(2, padding=1, count_include_pad=False)
        self.largest = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.scale = nn.LayerNorm(150)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(150, 5)
        with torch.no_grad():
            self.norm.running_mean.copy_(torch.linspace(-0.5, 0.5, 6))  # type: ignore[union-attr]
            self.norm.running_var.copy_(torch.linspace(0.5, 2.0, 6))  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        x = self.mean(self.slope(self.norm(self.conv(images))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = self.scale(F.gelu(self.largest(x).flatten(1)))
        logits: Tensor = self.head(self.dropout(x))
        return logits


class Branch(nn.Module):
    """One layer where the sum is positive, else another. `x`: float32 [batch, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.up(x)
        return self.down(x)


class Loop(nn.Module):
    """One layer, as often as `depth` (int64, 0-d) says. It keeps lengths, so that no turn is lost in the many."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        nn.init.orthogonal_(self.layer.weight)

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        for _ in range(int(depth)):
            x = self.layer(x)
        return x


class Words(nn.Module):
    """Tokens `int64 [batch, length]`, 0..19, to logits [batch, 2]: one recurrent step a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.cell = nn.GRUCell(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        state = torch.zeros(tokens.shape[0], 8, device=tokens.device)
        for t in range(tokens.shape[1]):
            state = self.cell(self.embedding(tokens[:, t]), state)
        logits: Tensor = self.head(state)
        return logits


class Heads(nn.Module):
    """Two inputs `float32 [batch, 3]` and one `int64 [batch]`; four outputs by name, two of them of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor, y: Tensor, count: Tensor) -> dict[str, Tensor]:
        scores = self.left(x) - self.right(y)
        return {
            "scores": scores,
            "chances": scores.softmax(1),
            "best": scores.argmax(1),
            "steps": torch.div(count, 3, rounding_mode="floor"),
        }


class Centred(nn.Module):
    """The mean of all that it is given is taken off. `x`: float32 [batch, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        centred: Tensor = self.layer(x - x.mean())
        return centred
