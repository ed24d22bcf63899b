"""Forms that hide traps, each in every format: aliasing, lazy operands, closures, state that changes type."""

import pytest
import torch
from carrying import FORMATS, check
from torch import nn

from deploypipe.formats.torchscript.printer import to_torchscript
from deploypipe.staging.outcomes import find_inputs, missing_outcomes, record_outcomes
from deploypipe.staging.trace import trace


def rand(*shape, shift=0.0, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + shift


SIGNS = [(rand(5, 4, shift=2.0),), (rand(2, 4, shift=-2.0),), (rand(1, 4),)]
EMPTY = {"EmptyBatch": [(torch.zeros(0, 4),), (rand(4, 4, shift=-4.0),)]}


class InPlaceThroughAnAlias(nn.Module):
    """`y` sees what the branch does to `x`."""

    def forward(self, x):
        x = x * 1
        y = x
        if x.sum() > 0:
            x += 1
            x[:, 0] = 7
        return x, y * 2


class ChangesItsInput(nn.Module):
    def forward(self, x):
        x += 1
        if x.sum() > 0:
            x[:, 0] = 0
        return x.sum(dim=0)


class InPlaceInALoop(nn.Module):
    def forward(self, x):
        out = torch.zeros_like(x)
        for i in range(x.shape[0]):
            if x[i].sum() > 0:
                out[i] += x[i] * 2
        return out


class ShortCircuitGuardsAnIndex(nn.Module):
    def forward(self, x):
        i = 0
        while i < x.shape[0] and x[i].sum() > -50:
            i += 1
        return x.sum() + i


class FloatStateAndClosure(nn.Module):
    def forward(self, x):
        rate = 1.0

        def shrink(v):
            return v * rate

        while x.norm() > 1:
            rate *= 0.9
            x = shrink(x)
        return x, rate


class StateStartsAsNone(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(4, 4)

    def forward(self, x):
        state = None
        for row in x:
            state = self.cell(row, state)
        return state[0]


class AppendInABranchOfALoop(nn.Module):
    def forward(self, x):
        kept = [x[0]]
        for row in x:
            if row.sum() > 0:
                kept.append(row)
        return torch.stack(kept), kept[-1], len(kept)


class ListInAWhile(nn.Module):
    def forward(self, x):
        seen = []
        while x.norm() > 1:
            x = x / 2
            seen.append(x.sum())
        seen.append(x.sum())
        return torch.stack(seen)


class ReturnFromNestedLoops(nn.Module):
    def forward(self, x):
        for row in x:
            for k in range(4):
                if row[k] > 1.5:
                    return row * k
        return x[0] * 0


class EmptyBatch(nn.Module):
    def forward(self, x):
        if x.shape[0] == 0 or x.min() < -3:
            return x.abs().sum()
        return x.sum() if x.shape[0] else x.sum() + 1


class StaticIndexOfALayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))

    def forward(self, x):
        for i in range(5):
            x = torch.tanh(self.layers[i](x))
            if x.norm() < 1:
                break
        return x


FORMS = [
    InPlaceThroughAnAlias,
    ChangesItsInput,
    InPlaceInALoop,
    ShortCircuitGuardsAnIndex,
    FloatStateAndClosure,
    StateStartsAsNone,
    AppendInABranchOfALoop,
    ListInAWhile,
    ReturnFromNestedLoops,
    EmptyBatch,
    StaticIndexOfALayer,
]


@pytest.mark.sample(10)
# TorchScript is written from the pt2 program, so that one form in three is enough of it.
@pytest.mark.parametrize(
    ("cls", "form"),
    [
        pytest.param(cls, form, marks=[pytest.mark.nightly] if form == "torchscript" and place % 3 else [])
        for place, cls in enumerate(FORMS)
        for form in FORMATS
    ],
)
def test_form(cls, form):
    torch.manual_seed(0)
    check(cls().eval(), (rand(1, 4),), SIGNS + EMPTY.get(cls.__name__, []), {"x": {0: "batch"}}, form)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        if x.sum() > 0:
            x = x * 2
        while x.norm() > 3:
            x = self.drop(x) / 2
        return x


def test_the_callers_module_stays_as_it_was():
    module = Branches().train()
    before = dict(vars(module))
    captured = trace(module, (rand(3, 4),), {"x": {0: "batch"}})
    assert captured.was_training and module.training
    assert type(module) is Branches and vars(module).keys() == before.keys()


def test_sites_and_diffs_show_what_became_of_the_control_flow():
    captured = trace(Branches(), (rand(3, 4),), {"x": {0: "batch"}})
    assert [(s.kind, s.became) for s in captured.sites] == [("if", "cond"), ("while", "while_loop")]
    assert all(s.file.endswith("test_forms.py") and s.line > 0 for s in captured.sites)
    assert "-        if x.sum() > 0:" in "".join(captured.rewritten.values()).replace("-    if", "-        if")


def test_paths_are_recorded_and_inputs_found_for_the_others():
    module, example = Branches(), (torch.full((3, 4), 0.1),)
    captured = trace(module, example, {"x": {0: "batch"}})
    coverage = record_outcomes(module, captured, [example])
    assert sorted(map(sorted, coverage.values())) == [["0"], ["true"]]
    assert missing_outcomes(coverage)
    found = find_inputs(module, captured, example, coverage)
    assert found
    coverage = record_outcomes(module, captured, [example, *found])
    assert {"true", "false"} in [set(taken) for taken in coverage.values()]
    assert {"0", "many"} <= set().union(*coverage.values())


def test_torchscript_says_how_it_was_made():
    module = Branches().eval()
    captured = trace(module, (rand(3, 4),), {"x": {0: "batch"}})
    assert to_torchscript(module, captured, SIGNS)[1] == "scripted"
    assert to_torchscript(module, captured, SIGNS, script_first=False)[1] == "generated"


def test_capture_again_after_a_failure():
    class Wrong(nn.Module):
        def forward(self, x):
            return x if min(x.sum(), None) else -x

    with pytest.raises(Exception):  # noqa: B017 -- whatever it is, it must leave no trace
        trace(Wrong(), (rand(3, 4),))
    trace(Branches(), (rand(3, 4),), {"x": {0: "batch"}})
