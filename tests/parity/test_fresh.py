"""The process that an artifact runs in alone."""

import io
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import ml_dtypes
import numpy as np
import psutil
import pytest
import torch
from support import PROJECT
from torch import Tensor, nn

import deploypipe
from deploypipe.contract.tensors import Array
from deploypipe.formats.reading import read_session
from deploypipe.parity.answering import Message, receive, send
from deploypipe.parity.fresh import FreshProcess
from deploypipe.parity.nursery import nursery_for

X = torch.linspace(-1, 1, 12).reshape(4, 3)
PIXELS = np.arange(12, dtype=np.float32).reshape(4, 3)


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


@pytest.fixture(scope="module", params=["onnx", "pt2", "torchscript"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    suffix = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".pt"}[request.param]
    path = tmp_path_factory.mktemp("fresh") / f"double{suffix}"
    deploypipe.export(Double().eval(), (X,), format=request.param, path=path)
    return path


def test_another_process_answers(artifact: Path) -> None:
    with closing(FreshProcess(artifact, "cpu", read_session(artifact))) as process:
        for _ in range(2):
            (answer,) = process.run([PIXELS])
            assert np.array_equal(answer, PIXELS * 2) and answer.dtype == np.float32


def test_what_the_artifact_raises_is_said_and_the_process_goes_on(artifact: Path) -> None:
    with closing(FreshProcess(artifact, "cpu", read_session(artifact))) as process:
        with pytest.raises(RuntimeError, match=r"\S"):
            process.run([PIXELS, PIXELS])
        assert np.array_equal(process.run([PIXELS])[0], PIXELS * 2)


def test_what_the_process_dies_of_is_said(artifact: Path) -> None:
    gone = artifact.with_name(f"gone{artifact.suffix}")
    process = FreshProcess(gone, "cpu", read_session(artifact))
    with closing(process), pytest.raises(RuntimeError, match="the process ended: .*no artifact at"):
        process.run([PIXELS])


def test_an_onnx_file_is_run_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "double.onnx"
    deploypipe.export(Double().eval(), (X,), format="onnx", path=path)
    code = (
        "import sys, numpy\n"
        "from pathlib import Path\n"
        "from deploypipe.parity import answering, nursery\n"
        "messages = [answering.Message([numpy.ones((4, 3), 'float32')])]\n"
        "answering.receive = lambda stream: messages.pop()\n"
        "answering.send = lambda stream, message: print(*message.arrays, file=sys.stderr)\n"
        "try:\n"
        "    answering.answer_all(Path(sys.argv[1]), 'cpu')\n"
        "except IndexError:\n"
        "    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "False", done.stderr
    assert "[2. 2. 2.]" in done.stderr


def test_the_model_source_beside_one_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's, which could be found from the folder that one is in, is not imported."""
    path = tmp_path / "double.onnx"
    deploypipe.export(Double().eval(), (X,), format="onnx", path=path)
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit('the folder is imported from')")
    monkeypatch.chdir(tmp_path)
    with closing(FreshProcess(path, "cpu", read_session(path))) as process:
        assert np.array_equal(process.run([PIXELS])[0], PIXELS * 2)


def test_nothing_is_left_of_a_process_that_was_closed(artifact: Path) -> None:
    """Nor does one see what another one of the same nursery did."""
    session = read_session(artifact)
    nursery = psutil.Process(nursery_for(artifact)._process.pid)
    with closing(FreshProcess(artifact, "cpu", session)) as one, closing(FreshProcess(artifact, "cpu", session)) as two:
        for process in (one, two):
            assert np.array_equal(process.run([PIXELS])[0], PIXELS * 2)
        children = nursery.children()
    assert len(children) >= 2
    with closing(FreshProcess(artifact, "cpu", session)) as third:  # the nursery has done what it was told before
        third.run([PIXELS])
        assert not any(child.is_running() for child in children)


def test_the_nursery_has_made_the_imports(artifact: Path) -> None:
    with closing(FreshProcess(artifact, "cpu", read_session(artifact))) as process:
        process.run([PIXELS])
        loaded = {Path(found.path).name for found in psutil.Process(nursery_for(artifact)._process.pid).memory_maps()}
    with_torch, with_onnxruntime = (any(part in name for name in loaded) for part in ("libtorch", "onnxruntime"))
    assert (with_torch, with_onnxruntime) == ((False, True) if artifact.suffix == ".onnx" else (True, False))


@pytest.mark.sample(1)
def test_a_nursery_that_was_killed_starts_again(artifact: Path) -> None:
    session, nursery = read_session(artifact), nursery_for(artifact)
    nursery._process.kill()
    nursery._process.wait()
    with closing(FreshProcess(artifact, "cpu", session)) as process:
        assert np.array_equal(process.run([PIXELS])[0], PIXELS * 2)
    assert nursery_for(artifact) is not nursery


@pytest.mark.parametrize(
    "array",
    [
        np.float32(3).reshape(()),
        np.zeros((0, 3), np.int64),
        np.array([True, False]),
        np.array([[1, 2], [3, 4]], np.uint8).T,
        np.array([1.5, -2], ml_dtypes.bfloat16),
        np.array([1 + 2j], np.complex64),
    ],
    ids=["scalar", "empty", "bool", "transposed", "bfloat16", "complex"],
)
def test_arrays_arrive_as_they_were_sent(array: Array) -> None:
    stream = io.BytesIO()
    send(stream, Message([array, array], "a problem"))
    stream.seek(0)
    message = receive(stream)
    assert message.problem == "a problem" and message.seconds is None and len(message.arrays) == 2
    for one in message.arrays:
        assert one.dtype == array.dtype and one.shape == array.shape and np.array_equal(one, array)
    with pytest.raises(EOFError):
        receive(stream)
