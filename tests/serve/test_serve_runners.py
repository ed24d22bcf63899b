"""An archive's own handler in this process, compared with eager as an artifact is."""

import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from without_server import rewrite

import deploypipe
from deploypipe.archives.pack import build_archive
from deploypipe.client import Client
from deploypipe.contract.signature import Signature, TensorSpec
from deploypipe.errors import PackageError, ServingError, UsageError
from deploypipe.formats import FORMATS
from deploypipe.formats.runner import Runner
from deploypipe.formats.session import Session
from deploypipe.parity.gate import Gate, usable
from deploypipe.parity.probes import Probe, image_probes
from deploypipe.parity.reference import Reference
from deploypipe.parity.verdict import Report
from deploypipe.serve.service.limits import MAX_BODY
from deploypipe.serve.sessions import archive_session, server_session
from deploypipe.served import examine_served


class Two(nn.Module):
    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return x * scale, x.sum(dim=1) > 0


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"root": x.sqrt(), "both": (x.double() / 3, x.half() / 7), "count": x.isfinite().sum()}


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x + 1


class Add(nn.Module):
    def __init__(self, number: float) -> None:
        super().__init__()
        self.register_buffer("number", torch.tensor(number))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number


def compare(module: nn.Module, session: Session, probes: Sequence[Probe | tuple[Tensor, ...]]) -> Report:
    reference = Reference(module)
    return Gate(reference, tuple(usable(reference, probes)[0])).examine_runner(Runner(session), "archive")


def _packed(module: nn.Module, example: tuple[Tensor, ...], folder: Path, format: str = "onnx", **axes: Any) -> Path:
    path = folder / f"{type(module).__name__.lower()}{FORMATS[format].suffix}"
    deploypipe.export(module.eval(), example, format=format, path=path, dynamic=axes)
    return build_archive(path, "model", store=folder).path


@pytest.mark.sample(1)
@pytest.mark.parametrize("format", FORMATS)
def test_an_archived_image_model_is_equal_to_eager(
    network: nn.Module, images: Tensor, artifacts: dict[str, Path], tmp_path: Path, format: str
) -> None:
    archive = build_archive(artifacts[format], "digits", store=tmp_path)
    with archive_session(archive.path) as session:
        report = compare(network, session, image_probes(images))
        report.raise_if_failed()
        assert report.runtime == {"onnx": "onnxruntime"}.get(format, "torch")
        assert report.provider == "archive handler"
        torch.manual_seed(1)
        other = compare(type(network)().eval(), session, image_probes(images))
    assert not other.passed


CASES: dict[str, tuple[nn.Module, tuple[Tensor, ...], dict[str, Any], list[tuple[Tensor, ...]]]] = {
    "two inputs": (
        Two(), (torch.rand(2, 3), torch.rand(3)), {"x": {0: "batch"}},
        [(torch.rand(5, 3), torch.rand(3)), (-torch.rand(1, 3), torch.rand(3)), (torch.rand(0, 3), torch.rand(3))],
    ),
    "dict of float16, float32, float64 and int64": (
        Named(), (torch.rand(2, 3),), {"x": {0: "batch"}}, [(torch.rand(4, 3) * 1e4,)],
    ),
    "control flow": (
        Branching(), (torch.rand(2, 3),), {"x": {0: "batch"}}, [(torch.rand(3, 3),), (-torch.rand(3, 3),)],
    ),
}  # fmt: skip


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", CASES)
def test_any_archived_model_is_equal_to_eager(tmp_path: Path, case: str) -> None:
    module, example, axes, inputs = CASES[case]
    path = _packed(module, example, tmp_path, "pt2", **axes)
    with archive_session(path) as session:
        report = compare(module, session, [example, *inputs])
    report.raise_if_failed()
    assert len(report.outcomes) >= len(inputs) + 1


def test_floats_come_through_json_bit_by_bit(tmp_path: Path) -> None:
    """Every exponent, the smallest and the largest, both zeros, NaN and the infinities."""
    bits = torch.randint(-(2**31), 2**31, (2000,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    extremes = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, 3.4028234663852886e38, 0.1, 1 / 3, 16777217.0]
    x = torch.cat([bits.view(torch.float32), torch.tensor(extremes)])
    path = _packed(nn.Identity(), (torch.rand(3),), tmp_path, "torchscript", input={0: "n"})
    with archive_session(path) as session:
        found = Runner(session)(x)
    assert torch.equal(found.isnan(), x.isnan())
    assert torch.equal(found[~x.isnan()].view(torch.int32), x[~x.isnan()].view(torch.int32))


def test_a_refused_probe_fails_with_the_handlers_reason(
    network: nn.Module, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    archive = build_archive(artifacts["onnx"], "digits", store=tmp_path)
    nothing = torch.zeros(0, 1, 28, 28, dtype=torch.uint8)  # no image is no question
    with archive_session(archive.path) as session:
        (outcome,) = compare(network, session, [Probe("empty", (nothing,))]).outcomes
    assert not outcome.passed
    assert "refuses the request (HTTP 422)" in outcome.problem and "[0, 1, 28, 28]" in outcome.problem


def test_a_probe_too_large_for_one_request_is_said_and_not_sent(
    network: nn.Module, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    archive = build_archive(artifacts["onnx"], "digits", store=tmp_path)
    small, large = (Probe("white", (torch.full((n, 1, 28, 28), 255, dtype=torch.uint8),)) for n in (3, 5000))
    with archive_session(archive.path) as session:
        report = examine_served(Gate(Reference(network), (small, large)), "archive", session)
    assert report.passed
    assert {outcome.shapes for outcome in report.outcomes} == {"3x1x28x28"}
    assert [(finding.check, f"one may have {MAX_BODY:,}" in finding.detail) for finding in report.findings] == [
        ("probes not sent", True)
    ]
    assert report.findings[0].detail.startswith("1 of 2; ")


def test_nothing_of_an_archive_stays_in_this_process(artifacts: dict[str, Path], tmp_path: Path) -> None:
    modules, path, threads = set(sys.modules), list(sys.path), torch.get_num_threads()
    level = logging.getLogger().level
    archive = build_archive(artifacts["torchscript"], "digits", store=tmp_path)
    with archive_session(archive.path) as session:
        folder = Path(session._folder.name)
        assert folder.is_dir()
        assert type(session.handler).__module__ == "handler"
        Runner(session)(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
    assert not folder.exists()
    assert not {name for name in set(sys.modules) - modules if name.split(".")[0] in ("handler", "archived")}
    assert (sys.path, torch.get_num_threads(), logging.getLogger().level) == (path, threads, level)


def test_two_archives_side_by_side_have_each_their_own_code(tmp_path: Path) -> None:
    one = _packed(Add(1.0), (torch.rand(2),), tmp_path / "one")
    two = _packed(Add(2.0), (torch.rand(2),), tmp_path / "two", "pt2")
    with archive_session(one) as first, archive_session(two) as second:
        assert Runner(first)(torch.zeros(2)).tolist() == [1.0, 1.0]
        assert Runner(second)(torch.zeros(2)).tolist() == [2.0, 2.0]
        assert type(first.handler) is not type(second.handler)
        assert (first.runtime, second.runtime) == ("onnxruntime", "torch")


def test_the_code_that_answers_is_the_archives(artifacts: dict[str, Path], tmp_path: Path) -> None:
    """Not this installation's: an archive whose own code is broken fails, with its own error."""
    archive = build_archive(artifacts["onnx"], "digits", store=tmp_path)
    rewrite(archive.path, {"archived/serve/torchserve/handler.py": b"raise RuntimeError('mine')\n"})
    with pytest.raises(PackageError, match="does not load: mine"):
        archive_session(archive.path)


SPECS = {dtype: TensorSpec("x", dtype, ("n",)) for dtype in ("float32", "complex64", "float8_e5m2")}


@pytest.mark.parametrize("dtype", ["complex64", "float8_e5m2"])
@pytest.mark.parametrize("kind", ["input", "output"])
def test_a_dtype_that_no_request_carries_is_refused_by_name(dtype: str, kind: str) -> None:
    specs = {"input": SPECS["float32"], "output": SPECS["float32"]} | {kind: SPECS[dtype]}
    with pytest.raises(UsageError, match=f"{kind} 'x' is {dtype}"):
        server_session(Client("http://127.0.0.1:1"), Signature((specs["input"],), (specs["output"],)))


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_a_model_that_no_request_could_reach_is_not_packaged(tmp_path: Path) -> None:
    path = tmp_path / "complex.pt2"
    deploypipe.export(nn.Identity().eval(), (torch.rand(2, dtype=torch.complex64),), format="pt2", path=path)
    with pytest.raises(PackageError, match="is complex64, which the Open Inference Protocol does not carry"):
        build_archive(path, "complex", store=tmp_path)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda folder: archive_session(folder / "no.mar"), PackageError, "no archive at"),
        (lambda folder: server_session(Client("http://127.0.0.1:1")), UsageError, "was not started here"),
        (lambda folder: server_session(Client("http://127.0.0.1:1"), Signature((SPECS["float32"],),
                                      (SPECS["float32"],))).run([np.float32([0])]), ServingError, "no server at"),
    ],
    ids=["no archive", "another's server without a signature", "no server"],
)  # fmt: skip
def test_nothing_to_compare_with_is_one_clear_line(
    tmp_path: Path, make: Callable[[Path], Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        make(tmp_path)


def test_a_device_that_is_not_here_is_refused(artifacts: dict[str, Path], tmp_path: Path) -> None:
    archive = build_archive(artifacts["onnx"], "digits", store=tmp_path)
    with pytest.raises(UsageError, match="is no device"):
        archive_session(archive.path, "abacus")
