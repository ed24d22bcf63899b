"""Sizes that only the values know: masks, slices, repeats."""
# ruff: noqa: SIM108 -- written as users write it

import torch
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, ints, num, rand

FORM = "value-dependent sizes"


@case("mask_select", FORM, (rand(3, 4),), [(rand(5, 4),), (rand(2, 4, shift=-9.0),), (rand(1, 4, shift=9.0),)], ROWS)
class MaskSelect(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0] * 2


@case("keep_rows", FORM, (rand(3, 4),), [(rand(5, 4),), (rand(2, 4, shift=-9.0),), (rand(1, 4, shift=9.0),)], ROWS)
class KeepRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        kept = x[x.sum(dim=1) > 0]
        if kept.shape[0] == 0:
            return torch.zeros(4)
        return kept.mean(dim=0)


@case(
    "slice_by_value",
    FORM,
    (rand(2, 6), num(3)),
    [(rand(2, 6), num(6)), (rand(1, 6), num(1)), (rand(4, 6), num(0))],
    ROWS,
)
class SliceByValue(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return x[:, : int(n)] + 1


@case(
    "slice_then_reduce",
    FORM,
    (rand(2, 6, 3), num(3)),
    [(rand(2, 6, 3), num(6)), (rand(1, 9, 3, shift=1.0), num(1)), (rand(4, 2, 3), num(2))],
    STEPS,
)
class SliceThenReduce(nn.Module):
    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        n = length.item()
        valid = x[:, :n]
        rest = x[:, n:]
        if rest.sum() > 0:
            return valid.mean(dim=1)
        return valid.amax(dim=1)


@case(
    "padding_removed",
    FORM,
    (ints(9, 1, 6),),
    [(torch.tensor([[4, 2, 7, 0, 0]]),), (torch.tensor([[1]]),), (torch.tensor([[3, 3, 8, 5, 1, 2, 6]]),)],
    {"tokens": {1: "length"}},
)
class PaddingRemoved(nn.Module):
    """Zeros are padding: drop them, then embed and run over what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.cell = nn.RNNCell(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        row = tokens[0]
        row = row[row != 0]
        h = torch.zeros(1, 4)
        for t in range(row.shape[0]):
            h = self.cell(self.embed(row[t : t + 1]), h)
        return h


@case(
    "arange_of_value",
    FORM,
    (rand(3, 4), num(3)),
    [(rand(3, 4), num(5)), (rand(1, 4), num(1)), (rand(2, 4), num(0))],
    ROWS,
)
class ArangeOfValue(nn.Module):
    def forward(self, x: Tensor, n: Tensor):
        positions = torch.arange(int(n), dtype=torch.float32)
        return x, positions * x.sum()


@case(
    "top_k_of_value",
    FORM,
    (rand(3, 6), num(2)),
    [(rand(3, 6), num(4)), (rand(1, 6), num(1)), (rand(2, 6), num(6))],
    ROWS,
)
class TopKOfValue(nn.Module):
    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        values, _ = x.topk(int(k), dim=1)
        return values.sum(dim=1)


@case("nonzero_positions", FORM, (rand(6),), [(rand(9),), (rand(1) - 9,), (rand(4) + 9,)], {"x": {0: "n"}})
class NonzeroPositions(nn.Module):
    def forward(self, x: Tensor):
        positions = torch.nonzero(x > 0).squeeze(1)
        if len(positions) > 0:
            first = positions[0]
        else:
            first = torch.tensor(-1)
        return first, positions


@case(
    "repeat_by_length",
    FORM,
    (rand(3, 2), torch.tensor([1, 2, 0])),
    [(rand(3, 2), torch.tensor([1, 2, 0])), (rand(1, 2), torch.tensor([4])), (rand(2, 2), torch.tensor([0, 1]))],
    {"x": {0: "phones"}, "durations": {0: "phones"}},
)
class RepeatByLength(nn.Module):
    """A length regulator, as in text to speech."""

    def forward(self, x: Tensor, durations: Tensor) -> Tensor:
        frames = []
        for i in range(x.shape[0]):
            for _ in range(int(durations[i])):
                frames.append(x[i])
        return torch.stack(frames)


@case(
    "growing_sequence",
    FORM,
    (rand(2, 3), num(3)),
    [(rand(2, 3), num(4)), (rand(1, 3), num(0)), (rand(3, 3), num(1))],
    ROWS,
)
class GrowingSequence(nn.Module):
    """The state itself grows: a tensor lengthened with `cat` on each step."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(3, 3)

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        sequence = x.unsqueeze(1)
        for _ in range(int(n)):
            following = self.step(sequence.mean(dim=1, keepdim=True))
            sequence = torch.cat([sequence, following], dim=1)
        return sequence


@case(
    "shrinking_by_halves",
    FORM,
    (rand(2, 8, 3),),
    [(rand(1, 1, 3),), (rand(2, 16, 3),), (rand(3, 5, 3),), (rand(2, 2, 3),)],
    STEPS,
)
class ShrinkingByHalves(nn.Module):
    """A pairwise tree reduction: the state has another size on every pass."""

    def forward(self, x: Tensor) -> Tensor:
        while x.shape[1] > 1:
            if x.shape[1] % 2 == 1:
                x = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
            x = torch.tanh(x[:, 0::2] + x[:, 1::2])
        return x[:, 0]


@case(
    "masked_mean",
    FORM,
    (rand(2, 5, 3), torch.tensor([5, 2])),
    [
        (rand(2, 5, 3), torch.tensor([5, 2])),
        (rand(1, 1, 3), torch.tensor([1])),
        (rand(3, 4, 3), torch.tensor([0, 4, 3])),
    ],
    {"x": {0: "batch", 1: "length"}, "lengths": {0: "batch"}},
)
class MaskedMean(nn.Module):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], 3)
        for b in range(x.shape[0]):
            n = int(lengths[b])
            if n > 0:
                out[b] = x[b, :n].mean(dim=0)
        return out


@case(
    "pad_to_multiple",
    FORM,
    (rand(2, 5, 3),),
    [(rand(1, 1, 3),), (rand(2, 8, 3),), (rand(3, 6, 3),), (rand(2, 4, 3),)],
    STEPS,
)
class PadToMultiple(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        missing = (4 - x.shape[1] % 4) % 4
        if missing > 0:
            x = nn.functional.pad(x, (0, 0, 0, missing))
        return x.reshape(x.shape[0], -1, 4, 3).sum(dim=2)
