"""What cannot be carried: the message names the line, the construct and why, and says what to write instead."""

import inspect
import random
import re

import numpy as np
import pytest
import torch
from torch import nn

from deploypipe.errors import ExportError, UsageError
from deploypipe.staging.trace import trace

X = torch.randn(3, 4)
HISTORY: list = []


class ShapesDiffer(nn.Module):
    def forward(self, x):
        if x.sum() > 0:  # here
            y = x.mean(dim=1)
        else:
            y = x * 2
            y = y + 1
        return y


class DtypesDiffer(nn.Module):
    def forward(self, x):
        y = x
        if x.sum() > 0:  # here
            y = x.long()
        return y


class AttributeAssigned(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1  # here
        return x * self.calls


class ListAttributeChanged(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x)  # here
        return x * len(self.seen)


class BufferChanged(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count.add_(1)
        return x * self.count


class PythonRandom(nn.Module):
    def forward(self, x):
        return x * random.random()  # here


class NumpyCall(nn.Module):
    def forward(self, x):
        return x + float(np.sqrt(2.0))  # here


class LeavesTorch(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy() * 2)  # here


class Prints(nn.Module):
    def forward(self, x):
        print(x.shape)
        return x


class Catches(nn.Module):
    def forward(self, x):
        try:  # here
            y = x.sqrt()
        except ValueError:
            y = x
        return y


class GradMode(nn.Module):
    def forward(self, x):
        return x if torch.is_grad_enabled() else -x  # here


class GrowingShape(nn.Module):
    def forward(self, x):
        while x.sum() < 100:  # here
            x = torch.cat([x, x[:1] + 1])
        return x


class ListReturned(nn.Module):
    def forward(self, x):
        out = []
        for row in x:
            out.append(row * 2)
        return out


class StartsAsNone(nn.Module):
    def forward(self, x):
        h = None
        while x.sum() > 0:  # here
            h = x if h is None else h + x
            x = x - 1
        return h


namespace: dict = {}
exec("def unknown(x):\n    return x if x.sum() > 0 else -x", namespace)


class NoSource(nn.Module):
    def forward(self, x):
        return namespace["unknown"](x)  # here


REFUSED = [
    (ShapesDiffer, "shape", "same"),
    (DtypesDiffer, "dtype", "one dtype"),
    (AttributeAssigned, "attribute `calls`", "--state explicit"),
    (ListAttributeChanged, "list attribute of the module", "inside forward"),
    (BufferChanged, "buffer `count`", "--state explicit"),
    (PythonRandom, "random.random()", "as an input"),
    (LeavesTorch, "Tensor.numpy()", "torch operations"),
    (GrowingShape, "gets longer along axis 0", "compare a counter with a limit"),
    (ListReturned, "list whose length depends on data", "stack"),
    (StartsAsNone, "None", "start it with a tensor"),
    (NoSource, "source is not available", "in a file"),
]


@pytest.mark.parametrize(("cls", "says", "remedy"), REFUSED, ids=[c.__name__ for c, *_ in REFUSED])
def test_refusal_names_the_line_the_construct_and_the_way_out(cls, says, remedy):
    module = cls().eval()
    with pytest.raises(ExportError) as caught:
        trace(module, (X,), {"x": {0: "batch"}})
    error = caught.value
    assert error.exit_code == 5
    assert says in error.message
    assert remedy.lower() in error.remedy.lower()
    assert re.match(r".*test_refusals\.py:\d+: ", error.message)
    lines, start = inspect.getsourcelines(cls)
    marked = [start + n for n, line in enumerate(lines) if "# here" in line]
    if marked:
        assert f"test_refusals.py:{marked[0]}: " in error.message


@pytest.mark.parametrize("cls", [NumpyCall, Prints, Catches, GradMode])
def test_what_python_does_beside_the_tensors_is_traced_as_it_is(cls, capsys):
    module = cls().eval()
    static = trace(module, (X,), {"x": {0: "batch"}})
    assert capsys.readouterr().out == ""
    assert static.selection == frozenset() and not static.limits
    with torch.no_grad():
        torch.testing.assert_close(static.program.module()(X[:1]), module(X[:1]), equal_nan=True)


class PrintsAValue(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            print("positive:", x.mean().item())
            x = x * 2
        return x


def test_what_is_printed_in_a_branch_is_dropped(capsys):
    static = trace(PrintsAValue().eval(), (X,), {"x": {0: "batch"}})
    assert capsys.readouterr().out == "" and len(static.remarks) == 1
    for x in (X.abs(), -X.abs()):
        assert torch.equal(static.program.module()(x), x * 2 if x.sum() > 0 else x)


def test_what_is_printed_is_dropped_with_one_remark():
    assert trace(Prints().eval(), (X,), {"x": {0: "batch"}}).remarks == (
        "what forward prints or logs is not in the artifact",
    )


def test_the_callers_module_is_untouched_by_a_refusal():
    module = ListAttributeChanged().train()
    with pytest.raises(ExportError):
        trace(module, (X,))
    assert module.seen == [] and module.training and "forward" not in vars(module)


def test_an_axis_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="no axis 5"):
        trace(nn.Identity(), (X,), {"input": {5: "n"}})
    with pytest.raises(UsageError, match="'y' is no argument"):
        trace(nn.Identity(), (X,), {"y": {0: "n"}})


class FixedSize(nn.Module):
    def forward(self, x):
        return x + torch.ones(5, 4)


def test_an_axis_that_comes_out_static_is_refused():
    with pytest.raises(ExportError):
        trace(FixedSize(), (torch.randn(5, 4),), {"x": {0: "batch"}})
