"""What eager is asked, by what it costs."""

import pytest
import torch
from torch import nn

from deploypipe.errors import UsageError
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import CHEAP, DEAR, Reference
from deploypipe.parity.runtime_settings import representatives


class Counted(nn.Module):
    calls = 0

    def forward(self, x):
        Counted.calls += 1
        return x * 2


@pytest.fixture
def reference():
    """One that has seen that each value costs a second."""
    made = Reference(Counted())
    made._per_value = 1.0
    Counted.calls = 0
    return made


def test_drawn_probe_that_would_cost_too_much_is_not_run(reference):
    with pytest.raises(UsageError, match="eager would take about 6 s"):
        reference.answer(Probe("drawn", (torch.ones(2, 3),), optional=True))
    assert Counted.calls == 0


def test_given_probe_is_run_whatever_it_costs(reference):
    assert torch.equal(reference.answer(Probe("given", (torch.ones(2, 3),))).leaves[0], torch.full((2, 3), 2.0))


def test_cheap_drawn_probe_is_run_and_tells_the_price(reference):
    assert DEAR > 1.0
    reference.answer(Probe("drawn", (torch.ones(1),), optional=True))
    assert reference._per_value < 1.0
    reference.answer(Probe("drawn", (torch.ones(2, 3),), optional=True))


def test_settings_of_a_runtime_are_tried_on_cheap_probes(reference):
    probes = [Probe("drawn", (torch.ones(rows, 2),), optional=True) for rows in (1, 2, 3)]
    assert CHEAP < DEAR
    assert representatives(probes) == [probes[2]]
    assert representatives(probes, lambda probe: probe.rows < 3) == [probes[1]]
    assert representatives(probes, lambda probe: False) == [probes[0]]
