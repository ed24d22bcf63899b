"""A call that never ends is ended, in every format, and only then."""

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import deploypipe
from deploypipe.formats import FORMATS
from deploypipe.formats.processor_time import Overrun, at_most
from deploypipe.formats.reading import read_session
from deploypipe.parity.fresh import FreshProcess
from deploypipe.parity.gate import Gate
from deploypipe.parity.probes import Probe
from deploypipe.parity.reference import Reference


def work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_what_takes_too_long_is_stopped() -> None:
    stopped = threading.Event()
    with pytest.raises(Overrun, match=r"no end after 0\.1 s of processor time"), at_most(0.1, stopped.set):
        while not stopped.is_set():
            work(0.01)
        raise RuntimeError("stopped")


def test_what_waits_uses_no_processor_time() -> None:
    """The work is another thread's, as on a machine that is busy with something else."""
    stopped = threading.Event()
    with at_most(0.1, stopped.set):
        busy = threading.Thread(target=work, args=(0.3,))
        busy.start()
        busy.join()
    assert not stopped.is_set()


def test_an_error_in_time_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="mine"), at_most(60, lambda: None):
        raise ValueError("mine")


class Doubles(nn.Module):
    """Never ends for zeros."""

    def forward(self, x: Tensor) -> Tensor:
        while x.sum() < 10:
            x = x * 2
        return x


class Returns(Doubles):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() == 0:
            return x
        return super().forward(x)


ONES, ZEROS = torch.ones(3), torch.zeros(3)


@pytest.fixture(scope="module", params=FORMATS)
def looping(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("looping") / f"doubles{FORMATS[request.param].suffix}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploypipe.staging.outcomes.PATIENCE", 0.1)
        deploypipe.export(Doubles().eval(), (ONES,), format=request.param, path=path, probes=[(ONES,)])
    return path


def test_a_loop_without_end_is_ended_and_the_session_goes_on(looping: Path) -> None:
    session = read_session(looping)
    if not session.stoppable:
        pytest.skip("its interpreter cannot be stopped: the gate asks another process first")
    for _ in range(2):
        with pytest.raises(Overrun), session.within(0.2):
            session.run([ZEROS.numpy()])
        with session.within(0.2):
            assert session.run([ONES.numpy()])[0].tolist() == [4, 4, 4]


def test_so_is_one_in_another_process(looping: Path) -> None:
    with closing(FreshProcess(looping, "cpu", read_session(looping))) as process:
        assert process.run([ONES.numpy()])[0].tolist() == [4, 4, 4]
        with pytest.raises(Overrun), process.within(0.2):
            process.run([ZEROS.numpy()])


def test_the_gate_calls_it_a_difference(looping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploypipe.parity.comparison.SLOWEST_CALL", 0.5)
    probes = Probe("given", (ONES,)), Probe("given", (ZEROS,)), Probe("given", (ZEROS,))
    report = Gate(Reference(Returns()), probes).examine(looping)
    assert not report.passed
    assert "the artifact never returns: no end after 0.5 s of processor time, eager took" in report.reason
    assert len(report.failures) == 1, "the next one would take as long"
