"""Shapes that an output can have."""
# ruff: noqa: SIM108 -- written as users write it

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ._case import ROWS, STEPS, case, rand

FORM = "outputs"
BOTH_SIGNS = [(rand(5, 4, shift=2.0),), (rand(2, 4, shift=-2.0),), (rand(1, 4, shift=1.0),)]
SCALES = [(rand(3, 4) * 100,), (rand(2, 4) * 0.01,), (rand(1, 4) * 2.5,)]


@case("dict_output", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class DictOutput(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.sum() > 0:
            logits = x * 2
        else:
            logits = -x
        return {"logits": logits, "probabilities": logits.softmax(dim=1)}


@case("dict_from_each_branch", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class DictFromEachBranch(nn.Module):
    """The same keys, built and returned separately, in a different order."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.sum() > 0:
            return {"y": x * 2, "which": torch.tensor(1)}
        return {"which": torch.tensor(0), "y": -x}


@case("dict_filled_in_branches", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class DictFilledInBranches(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = {}
        out["raw"] = x
        if x.mean() > 0:
            out["score"] = x.amax(dim=1)
        else:
            out["score"] = x.amin(dim=1)
        return out


@case("list_output", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class ListOutput(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for width in (1, 2, 4):  # fixed
            part = x[:, :width]
            if part.sum() < 0:
                part = -part
            outputs.append(part)
        return outputs


@dataclass
class Prediction:
    logits: Tensor
    confident: Tensor


@case("dataclass_output", FORM, (rand(3, 4),), [(rand(3, 4) * 9,), (rand(2, 4) * 0.1,)], ROWS)
class DataclassOutput(nn.Module):
    def forward(self, x: Tensor) -> Prediction:
        p = x.softmax(dim=1)
        if p.max(dim=1).values.mean() > 0.7:
            return Prediction(logits=x, confident=torch.ones(x.shape[0], dtype=torch.bool))
        return Prediction(logits=x / 2, confident=torch.zeros(x.shape[0], dtype=torch.bool))


class Pair(NamedTuple):
    low: Tensor
    high: Tensor


@case("named_tuple_output", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class NamedTupleOutput(nn.Module):
    def forward(self, x: Tensor) -> Pair:
        a, b = x.amin(dim=1), x.amax(dim=1)
        if x.mean() < 0:
            a, b = -b, -a
        return Pair(low=a, high=b)


@case("nested_output", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class NestedOutput(nn.Module):
    def forward(self, x: Tensor):
        if x.mean() > 0:
            hidden = x.relu()
        else:
            hidden = x.exp()
        return {"out": (hidden, hidden.sum(dim=1)), "aux": [x.mean(), x.std()]}


@case("loop_and_dict_output", FORM, (rand(2, 5, 3),), [(rand(1, 1, 3),), (rand(3, 8, 3),), (rand(2, 2, 3),)], STEPS)
class LoopAndDictOutput(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = torch.zeros(x.shape[0], 3)
        trace = []
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t])
            trace.append(h)
        return {"last": h, "all": torch.stack(trace, dim=1)}


@case("steps_taken", FORM, (rand(3, 4),), SCALES, ROWS)
class StepsTaken(nn.Module):
    """Returns a Python int that the loop counted: the artifact returns it as a tensor."""

    def forward(self, x: Tensor):
        steps = 0
        while x.norm() > 1:
            x = x / 2
            steps += 1
        return x, steps


@case("input_handed_back", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class InputHandedBack(nn.Module):
    """An output that is an input, and one tensor returned twice."""

    def forward(self, x: Tensor):
        if x.sum() > 0:
            y = x
        else:
            y = x - 1
        return x, y, y


@case("mixed_dtypes_output", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class MixedDtypesOutput(nn.Module):
    def forward(self, x: Tensor):
        best = x.argmax(dim=1)
        if x.max() > 2:
            keep = x > 0
        else:
            best = best * 0
            keep = x < 0
        return best, keep, x.double(), keep.sum(dim=1)
