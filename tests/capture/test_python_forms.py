"""Statements of Python that once passed through the compiler unseen, in every format."""

import pytest
import torch
from carrying import FORMATS, check
from torch import Tensor, nn

from deploypipe.errors import ExportError
from deploypipe.staging.trace import trace

ROWS = {"x": {0: "rows"}}
PROBES = [(torch.ones(2, 4),), (-torch.ones(3, 4),), (torch.zeros(1, 4),)]


class MatchWithReturns(nn.Module):
    """A `return` inside `match` inside an `if` was lost."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            match self.mode:
                case "double":
                    return x * 2
                case "negate":
                    return -x
        return x


class MatchOnANumberThatDependsOnData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        match int(x.sum()):
            case 8:
                y = x + 8
            case 0 | -12 as n:
                y = x * n
            case _ if x.shape[0] > 1:
                y = x - 1
            case _:
                y = x
        return y


class MatchOnAStructure(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        match [x, x * 2]:
            case [first, second] if self.training:
                return first
            case [first, *_, second]:
                if first.sum() > 0:
                    return second
        return x


class DeletesInABranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        if x.sum() > 0:
            del y
            y = x + 1
        return y


class DeletesAnItem(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts = [x, x * 2, x * 3]
        if x.sum() > 0:
            del parts[1]
            parts.append(x * 4)
        return torch.stack(parts).sum(0)


class NamesOfTheCompiler(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        item_ = values_ = result_ = x
        for helpers_ in x:
            if helpers_.sum() > 0:
                item_ = item_ + helpers_
            else:
                values_ = values_ - helpers_
        return item_ + values_ * result_


class TryAndFinally(nn.Module):
    """`KeyError: <ast.If object …>`."""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        try:
            if x.sum() > 0:
                y = x * 2
        finally:
            if y.sum() > 4:
                y = y + 1
        return y


class AnnotatedNames(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = x[0] * 0
        for row in x:
            if row.sum() > 0:
                step: Tensor = row * 2
            else:
                step: Tensor = row
            total = total + step
        return total


class FunctionsMadeInALoop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for i in range(3):

            def add(y: Tensor, i: int = i) -> Tensor:
                for j in range(i):
                    y = y + j
                return y

            if x.sum() > 0:
                x = add(x)
        return x


class ElseOfATry(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        try:
            if x.sum() > 0:
                return x * 2
        finally:
            x = x + 1
        return x


class MovesAPart(nn.Module):
    """As the routers of mixtures of experts do."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.part = self.part.to(x.dtype)
        return self.part.float()(x)


@pytest.mark.sample(10)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    "module",
    [
        MatchWithReturns("double"), MatchWithReturns("other"), MatchOnANumberThatDependsOnData(), MatchOnAStructure(),
        DeletesInABranch(), DeletesAnItem(), NamesOfTheCompiler(), TryAndFinally(), AnnotatedNames(),
        FunctionsMadeInALoop(), ElseOfATry(), MovesAPart(),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_carried(module: nn.Module, fmt: str) -> None:
    check(module, PROBES[0], PROBES, ROWS, fmt)


class DeletesAnAttribute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        if x.sum() > 0:
            del self.seen
        return x


def test_what_is_fenced_is_shown_with_a_caret_and_what_to_do() -> None:
    with pytest.raises(ExportError) as caught:
        trace(DeletesAnAttribute(), PROBES[0], ROWS)
    error = caught.value
    assert "test_python_forms.py:" in error.message
    assert error.message.endswith("`del self.seen`: the artifact has no memory between calls")
    assert error.remedy == "Leave `self.seen` as it is."
    source, caret = error.excerpt.splitlines()
    assert source.strip() == "del self.seen"
    assert caret.strip() == "^" * len("del self.seen")
