"""What eager is asked, by what it costs."""

import pytest
import torch
from torch import nn

from deploypipe.parity.budget import GB, Budget, LeftOut
from deploypipe.parity.gate import usable
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import Reference
from deploypipe.parity.runtime_settings import representatives


class Counted(nn.Module):
    calls = 0

    def forward(self, x):
        Counted.calls += 1
        return x * 2


def drawn(*shape):
    return Probe("drawn", (torch.ones(*shape),), optional=True)


@pytest.fixture
def reference():
    """One of ten seconds that has seen that each value costs a second."""
    made = Reference(Counted(), Budget(seconds=10))
    made._per_value = 1.0
    Counted.calls = 0
    return made


def test_drawn_probe_that_would_cost_too_much_is_not_run(reference):
    with pytest.raises(LeftOut, match="about 6 s of eager's time"):
        reference.answer(drawn(2, 3))
    assert Counted.calls == 0
    assert reference.left_out == ["drawn [2x3] (about 6 s of eager's time)"]


def test_it_is_left_out_without_a_remark_of_its_own(reference):
    assert usable(reference, [drawn(2, 3)]) == ([], [])


def test_given_probe_is_run_whatever_it_costs(reference):
    assert torch.equal(reference.answer(Probe("given", (torch.ones(2, 3),))).leaves[0], torch.full((2, 3), 2.0))


def test_cheap_drawn_probe_is_run_and_tells_the_price(reference):
    reference.answer(drawn(1))
    assert reference._per_value < 1.0
    reference.answer(drawn(2, 3))


def test_drawn_probes_together_keep_within_the_budget(reference):
    reference._per_value, reference._spent = 0.1, 9.5
    with pytest.raises(LeftOut):
        reference.answer(drawn(2, 3))


@pytest.mark.parametrize(("memory", "left_out"), [(1e-7, True), (1.0, False)], ids=["100 bytes", "1 GB"])
def test_probe_that_would_need_too_much_memory_is_not_run(memory, left_out):
    reference = Reference(Counted(), Budget(memory=memory))
    reference.answer(Probe("example", (torch.ones(2, 3),)))
    taken, _ = usable(reference, [drawn(100, 3)])
    assert (not taken) is left_out
    assert bool(reference.left_out) is left_out


def test_settings_of_a_runtime_are_tried_on_cheap_probes():
    probes = [drawn(rows, 2) for rows in (1, 2, 3)]
    assert representatives(probes) == [probes[2]]
    assert representatives(probes, lambda probe: probe.rows < 3) == [probes[1]]
    assert representatives(probes, lambda probe: False) == [probes[0]]


def test_bytes_are_gigabytes():
    assert Budget(memory=2).bytes_allowed() == 2 * GB
