"""Networks whose Python control flow depends on what they are given, written as anyone would write them."""

import torch
from torch import Tensor, nn


class DynamicBranch(nn.Module):
    """`x * 2` where the sum is positive, else `x + 1`. `x`: float32 [batch, 10]."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x + 1


class DynamicDepth(nn.Module):
    """One layer, applied as often as `depth` (int64, 0-d) says. `x`: float32 [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 10)

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        for _ in range(int(depth)):
            x = torch.relu(self.layer(x))
        return x


class Sentence(nn.Module):
    """Token sequences of any length (int64 [batch, length], 0..99) to logits [batch, 2]: one recurrent step a token."""

    def __init__(self, vocabulary: int = 100, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.cell = nn.GRUCell(width, width)
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        state = torch.zeros(tokens.shape[0], self.cell.hidden_size, device=tokens.device)
        for t in range(tokens.shape[1]):
            state = self.cell(self.embedding(tokens[:, t]), state)
        logits: Tensor = self.head(state)
        return logits
