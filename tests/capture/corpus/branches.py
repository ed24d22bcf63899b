"""Branches: what is assigned where, in which shape the condition comes."""
# ruff: noqa: RET505, SIM108 -- written as users write it

import torch
from torch import Tensor, nn

from ._case import ROWS, case, num, rand

FORM = "branches"
BOTH_SIGNS = [(rand(5, 4, shift=2.0),), (rand(2, 4, shift=-2.0),), (rand(1, 4, shift=1.0),)]


@case("ternary", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class Ternary(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        scale = 2.0 if x.mean() > 0 else 0.5
        return x * scale


@case("ternary_in_call", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class TernaryInCall(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.sigmoid(x if x.sum() > 0 else -x)], dim=1)


@case(
    "elif_ladder", FORM, (rand(3, 4),), [(rand(3, 4, shift=s),) for s in (-5.0, -1.5, 1.5, 5.0)] + [(rand(1, 4),)], ROWS
)
class ElifLadder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        level = x.mean()
        if level < -3:
            out = x.exp()
        elif level < 0:
            out = x * level
        elif level < 3:
            out = x.relu()
        else:
            out = x.log1p()
        return out


@case("assigned_in_one_branch", FORM, (rand(3, 4),), [(rand(4, 4, shift=-1.0),), (rand(2, 4, shift=9.0),)], ROWS)
class AssignedInOneBranch(nn.Module):
    def forward(self, x: Tensor):
        low = x.min()
        shift = torch.zeros(())
        if low < 0:
            shift = -low
            x = x + shift
        return x, shift


@case("several_at_once", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class SeveralAtOnce(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            a, b = x.relu(), -x
            c = a + b
        else:
            a, b = -x, x.tanh()
            c = a * b
        return a - b * c


@case("augmented_assignment", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class AugmentedAssignment(nn.Module):
    """`+=` on a tensor writes in place: the branch changes a tensor made outside it."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        if x.sum() > 0:
            y += 1
            y *= 2
        else:
            y -= x.mean()
        return y


@case("inplace_method_in_branch", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class InplaceMethodInBranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 3
        if y.sum() > 0:
            y.clamp_(max=1.0)
        y.add_(1)
        return y


@case("column_write_in_branch", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class ColumnWriteInBranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        if x.mean() > 0:
            y[:, 0] = 0
            y[:, 2] += y[:, 1]
        return y


@case(
    "swap",
    FORM,
    (rand(3, 4), rand(3, 4, seed=1)),
    [(rand(2, 4, shift=1.0), rand(2, 4)), (rand(5, 4, shift=-1.0), rand(5, 4, seed=3))],
    {"a": {0: "batch"}, "b": {0: "batch"}},
)
class Swap(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.sum() > b.sum():
            a, b = b, a
        return a - 2 * b


@case(
    "nested_branches",
    FORM,
    (rand(3, 4),),
    [(rand(2, 4, shift=s) * k,) for s in (-2.0, 2.0) for k in (0.1, 1.0, 9.0)] + [(rand(1, 4),)],
    ROWS,
)
class NestedBranches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        peak = x.abs().max()
        if x.mean() > 0:
            if peak > 10:
                x = x / peak
            else:
                if peak > 1:
                    x = x * 2
                x = x + 1
        else:
            if peak > 10:
                x = x.clamp(-1, 1)
            x = x - peak
        return x


@case("bool_input", FORM, (rand(3, 4), num(True)), [(rand(5, 4), num(True)), (rand(1, 4), num(False))], ROWS)
class BoolInput(nn.Module):
    def forward(self, x: Tensor, normalise: Tensor) -> Tensor:
        if normalise:
            x = (x - x.mean(dim=1, keepdim=True)) / (x.std(dim=1, keepdim=True) + 1e-5)
        return x + 1


@case("integer_mode_input", FORM, (rand(3, 4), num(0)), [(rand(2 + m, 4), num(m)) for m in range(4)], ROWS)
class IntegerModeInput(nn.Module):
    def forward(self, x: Tensor, mode: Tensor) -> Tensor:
        if mode == 0:
            return x.relu()
        elif mode == 1:
            return x.sigmoid()
        elif mode == 2:
            return x.tanh()
        else:
            return x


@case("branch_on_item", FORM, (rand(3, 4),), [(rand(3, 4) * 9,), (rand(2, 4) * 0.1,)], ROWS)
class BranchOnItem(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        peak = x.abs().max().item()
        if peak > 3:
            x = x / peak
        return x


@case("branch_on_float", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class BranchOnFloat(nn.Module):
    """Python numbers, different in each branch, used later."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.mean()) > 0.0:
            gain, offset = 1.5, 2
        else:
            gain, offset = -0.5, 7
        return x * gain + offset


@case("same_condition_twice", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class SameConditionTwice(nn.Module):
    """`scale` exists on one path only, and is only used on that path."""

    def forward(self, x: Tensor) -> Tensor:
        positive = x.sum() > 0
        if positive:
            scale = x.max()
            x = x / scale
        x = x.tanh()
        if positive:
            x = x * scale
        return x


@case("dead_after_branch", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class DeadAfterBranch(nn.Module):
    """Temporaries of different shapes in each branch, none of them used afterwards."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            tmp = x.mean(dim=0)
            x = x - tmp
        else:
            tmp = x.mean(dim=1, keepdim=True)
            other = tmp * 2
            x = x + other
        return x


@case("identity_branch", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class IdentityBranch(nn.Module):
    """A branch that hands its input on unchanged, and one that hands on a view."""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if x.sum() > 0:
            pass
        else:
            y = x.flip(1)[:, :4]
        return y


@case("scalar_and_matrix_promotion", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class ScalarPromotion(nn.Module):
    """An int on one path and a float on the other, both only ever multiplied into a float tensor."""

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            k = 2
        else:
            k = 0.25
        return x * k


@case("strides_differ", FORM, (rand(3, 4, 4),), [(rand(5, 4, 4, shift=1.0),), (rand(1, 4, 4, shift=-1.0),)], ROWS)
class StridesDiffer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            y = x.transpose(1, 2)
        else:
            y = x * 2
        return y.reshape(x.shape[0], -1)


@case("static_and_dynamic_mixed", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class StaticAndDynamicMixed(nn.Module):
    def __init__(self, kind: str = "soft", layers: int = 2) -> None:
        super().__init__()
        self.kind = kind
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(layers))
        self.head = None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if bias is not None:  # fixed
            x = x + bias
        if self.head is not None:  # fixed
            x = self.head(x)
        if self.kind == "soft":  # fixed
            if x.sum() > 0:
                x = x.softmax(dim=1)
        elif self.kind == "hard":  # fixed
            x = x.sign()
        else:
            raise ValueError(self.kind)
        for layer in self.layers:  # fixed
            x = layer(x)
        return x


@case("weights_in_both_branches", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class WeightsInBothBranches(nn.Module):
    """Parameters and buffers read directly inside the branches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.register_buffer("offset", torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > self.offset.mean() - 1.5:
            return x @ self.weight + self.offset
        return x @ self.weight.t() - self.weight.sum()


@case("assertions", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class Assertions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 2, "a matrix"
        assert not torch.isnan(x).any(), "no missing values"
        assert x.abs().max() < 1e6
        if x.sum() > 0:
            assert x.max() > 0, "a positive sum has a positive term"
            x = x.sqrt().nan_to_num()
        return x


@case("raise_on_bad_value", FORM, (rand(3, 4),), BOTH_SIGNS, ROWS)
class RaiseOnBadValue(nn.Module):
    """Input checks written as `if ...: raise`; no probe breaks them."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 4:  # fixed
            raise ValueError(f"expected 4 columns, got {x.shape[1]}")
        if torch.isinf(x).any():  # fixed
            raise ValueError("infinite input")
        if x.mean() > 0:
            x = x + 1
        return x * 2
