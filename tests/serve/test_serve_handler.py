"""The handler in this process: its proof at load, and one answer for each request of a mixed batch."""

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from without_server import Context, load

import deploypipe
from deploypipe.contract.sample import Sample
from deploypipe.errors import PackageError
from deploypipe.formats import FORMATS
from deploypipe.formats.reading import read_artifact
from deploypipe.serve.service.served_model import ArchiveInvalid
from deploypipe.serve.torchserve.handler import Handler


@pytest.fixture(scope="module", params=list(FORMATS))
def loaded(
    request: pytest.FixtureRequest, artifacts: dict[str, Path], tmp_path_factory: Any
) -> tuple[Handler, Context]:
    return load(artifacts[request.param], tmp_path_factory.mktemp("loaded"))


def _png(pixels: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[0].numpy()).save(file, "PNG")
    return file.getvalue()


def _npy(pixels: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels.numpy())
    return file.getvalue()


def _instances(*instances: Any) -> bytes:
    return json.dumps({"instances": instances}).encode()


def _ask(handler: Handler, context: Context, *bodies: bytes) -> list[tuple[int, Any]]:
    fresh = Context(context.manifest, context.system_properties)
    answers = handler.handle([{"body": bytearray(body)} for body in bodies], fresh)
    assert len(answers) == len(bodies)
    assert set(fresh.content_types.values()) == {"application/json"}
    return [(fresh.statuses.get(i, 200), json.loads(answer)) for i, answer in enumerate(answers)]


@pytest.mark.sample(1)
def test_a_mixed_batch_is_answered_one_by_one_in_one_run(
    loaded: tuple[Handler, Context], network: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, context = loaded
    wanted = network(images).softmax(1).tolist()
    runs = []
    run = handler.model.session.run
    monkeypatch.setattr(handler.model.session, "run", lambda inputs: runs.append(inputs[0].shape[0]) or run(inputs))
    answers = _ask(
        handler,
        context,
        _png(images[0]),
        b"",
        _npy(images[1:6]),
        _instances(images[6].tolist(), {"b64": base64.b64encode(b"no image").decode()}),
        json.dumps(
            {"instances": [images[7, 0].tolist(), {"b64": base64.b64encode(_png(images[8])).decode()}]}
        ).encode(),
        _png(images[9])[:-200],
        _png(images[10]),
    )
    assert [status for status, _ in answers] == [200, 400, 200, 415, 200, 400, 200]
    found = [answers[0][1], *answers[2][1]["predictions"], *answers[4][1]["predictions"], answers[6][1]]
    rows = [0, 1, 2, 3, 4, 5, 7, 8, 10]
    assert len(found) == len(rows)
    for row, answer in zip(rows, found, strict=True):
        assert answer["probabilities"] == pytest.approx(wanted[row], abs=1e-5)
        assert answer["class"] == max(range(10), key=wanted[row].__getitem__)
        assert answer["probability"] == max(answer["probabilities"])
    assert "instances[1]" in answers[3][1]["error"]
    assert runs == [len(rows)]  # rejected requests leave no rows behind


def test_a_batch_of_bad_requests_runs_nothing(loaded: tuple[Handler, Context]) -> None:
    answers = _ask(*loaded, b"", b"{}", b"plain text")
    assert [status for status, _ in answers] == [400, 422, 415]
    assert all(answer["error"] for _, answer in answers)


def test_a_bug_costs_one_request_a_500_and_its_neighbours_nothing(
    loaded: tuple[Handler, Context], images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, context = loaded
    read = handler.model._read
    monkeypatch.setattr(handler.model, "_read", lambda body: 1 / 0 if body == b"bug" else read(body))
    (good, _), (bad, answer), (other, _) = _ask(handler, context, _png(images[0]), b"bug", _png(images[1]))
    assert (good, bad, other) == (200, 500, 200)
    assert "zero" not in answer["error"]


def test_a_batch_that_fails_together_is_answered_apart(
    loaded: tuple[Handler, Context], network: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, context = loaded
    run = handler.model.session.run
    monkeypatch.setattr(handler.model.session, "run", lambda inputs: 1 / 0 if len(inputs[0]) > 2 else run(inputs))
    answers = _ask(handler, context, _png(images[0]), _npy(images[:3]), _npy(images[1:3]), b"")
    assert [status for status, _ in answers] == [200, 500, 200, 400]
    found = [answers[0][1], *answers[2][1]["predictions"]]
    wanted = network(images[:3]).softmax(1)
    assert torch.allclose(torch.tensor([answer["probabilities"] for answer in found]), wanted, atol=1e-5)


def _protocol(**changes: Any) -> bytes:
    item = {"name": "pixels", "shape": [1, 1, 28, 28], "datatype": "UINT8", "data": [0] * 784}
    document = {"inputs": [{**item, **changes.pop("item", {})}], **changes}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (_protocol(id="x"), 200, ""),
        (_protocol(item={"data": [[[[0] * 28] * 28]]}), 200, ""),
        (_protocol(outputs=[{"name": "logits"}]), 200, ""),
        (_protocol(item={"datatype": "FP32"}), 422, "accepted: 'UINT8'"),
        (_protocol(item={"datatype": ["UINT8"]}), 422, "datatype"),
        (_protocol(item={"shape": [2, 1, 28, 28]}), 422, "784 values"),
        (_protocol(item={"shape": [28, 28]}), 422, "has shape [28, 28]"),
        (_protocol(item={"shape": "many"}), 422, "no shape"),
        (_protocol(item={"shape": [0, 1, 28, 28], "data": []}), 422, "has shape [0"),
        (_protocol(item={"name": "image"}), 422, "pixels: uint8[batch"),
        (_protocol(item={"data": [0] * 783 + [256]}), 422, "outside 0..255"),
        (_protocol(item={"data": [0.5] * 784}), 422, "not uint8"),
        (_protocol(item={"data": ["0"] * 784}), 422, "not uint8"),
        (_protocol(item={"data": [[0], [0, 1]]}), 422, "ragged"),
        (_protocol(outputs=[{"name": "nothing"}]), 422, "'logits'"),
        (_protocol(id=7), 422, "'id'"),
        (b'{"inputs": 3}', 422, "list of objects"),
        (b'{"inputs": [], "instances": []}', 422, "either"),
        (b'{"instances": []}', 422, "at least one"),
        (b'{"instances": [{"b64": "?"}]}', 422, "base64"),
        (b'{"instances": [{"url": "http://example.org"}]}', 422, "b64"),
        (b'{"instances": [[[1, 2], [3]]]}', 422, "ragged"),
        (b'{"instances": [7]}', 422, "shape []"),
        (b'{"instances": [null]}', 422, "shape []"),
        (json.dumps({"instances": [[["a"] * 28] * 28]}).encode(), 422, "no numbers"),
        (json.dumps({"instances": [[[True] * 28] * 28]}).encode(), 422, "no numbers"),
        (json.dumps({"instances": [[[-1] * 28] * 28]}).encode(), 422, "outside 0..255"),
        (json.dumps({"instances": [[[0.5] * 28] * 28]}).encode(), 422, "fractional"),
        (json.dumps({"instances": [[[10**30] * 28] * 28]}).encode(), 422, "instances[0]"),
        (json.dumps({"instances": [[[7.0] * 28] * 28]}).encode(), 200, ""),
        (b"[1, 2]", 422, "must be an object"),
        (b'"text"', 422, "must be an object"),
        (b'{"instances": [Infinity]}', 400, "no valid JSON"),
        (b"[" * 100_000, 400, "no valid JSON: depth limit"),
        (b'{"instances": ["\xff"]}', 400, "no valid JSON"),
        (b"\x93NUMPY", 400, "header is damaged"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1'}", 400, "header is damaged"),
    ],
)
def test_bodies(artifacts: dict[str, Path], tmp_path_factory: Any, body: bytes, status: int, says: str) -> None:
    handler, context = _cached(artifacts["onnx"], tmp_path_factory)
    ((found, answer),) = _ask(handler, context, body)
    assert found == status, answer
    assert says in answer.get("error", "")


_handlers: dict[Path, tuple[Handler, Context]] = {}


def _cached(artifact: Path, factory: Any) -> tuple[Handler, Context]:
    if artifact not in _handlers:
        _handlers[artifact] = load(artifact, factory.mktemp("cached"))
    return _handlers[artifact]


@pytest.mark.parametrize(
    ("item", "status", "says"),
    [
        ({}, 400, "empty body"),
        ({"picture": bytearray(b"x")}, 400, "form fields ['picture']"),
        ({"data": bytearray(b"text")}, 415, "no image"),
    ],
    ids=["nothing", "another field", "the field data"],
)
def test_form_fields(artifacts: dict[str, Path], tmp_path_factory: Any, item: Any, status: int, says: str) -> None:
    handler, context = _cached(artifacts["onnx"], tmp_path_factory)
    fresh = Context(context.manifest, context.system_properties)
    (answer,) = handler.handle([item], fresh)
    assert fresh.statuses == {0: status}
    assert says in json.loads(answer)["error"]


def test_an_npy_that_claims_more_than_it_brings_allocates_nothing(artifacts: Any, tmp_path_factory: Any) -> None:
    handler, context = _cached(artifacts["onnx"], tmp_path_factory)
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 28, 28)}
    np.lib.format.write_array_header_1_0(file, header)
    ((status, answer),) = _ask(handler, context, file.getvalue() + bytes(784))
    assert status == 400
    assert "784 bytes" in answer["error"]


class Affine(nn.Module):
    """Rows do not see each other."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"double": x * 2, "positive": (x > 0).any(1), "log": x[:, 0].log()}


class Whole(nn.Module):
    """All rows decide together: requests must not be joined."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean()


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Handler, Context]:
    folder = tmp_path_factory.mktemp("tensors")
    example = (torch.rand(3, 2) + 0.1,)
    deploypipe.export(Affine(), example, format="pt2", path=folder / "m.pt2", dynamic={"x": {0: "rows"}})
    return load(folder / "m.pt2", folder)


def test_tensors_are_answered_by_output_names(tensors: tuple[Handler, Context]) -> None:
    inputs = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0, -3.5]}]
    named, plain, protocol = _ask(
        *tensors,
        b'{"instances": [{"x": [1, 2]}, {"x": [-1, "NaN"]}]}',
        b'{"instances": [[1, 2]]}',
        json.dumps({"inputs": inputs, "outputs": [{"name": "log"}, {"name": "positive"}]}).encode(),
    )
    assert named == (
        200,
        {
            "predictions": [
                {"double": [2.0, 4.0], "positive": True, "log": 0.0},
                {"double": [-2.0, "NaN"], "positive": False, "log": "NaN"},
            ]
        },
    )
    assert plain == (200, {"predictions": [{"double": [2.0, 4.0], "positive": True, "log": 0.0}]})
    assert protocol[1]["outputs"] == [
        {"name": "log", "shape": [1], "datatype": "FP32", "data": ["-Infinity"]},
        {"name": "positive", "shape": [1], "datatype": "BOOL", "data": [False]},
    ]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"\x89PNG", 415, "takes JSON"),
        (b'{"instances": [{"y": [1, 2]}]}', 422, "the inputs are ['x']"),
        (b'{"instances": [[1, 2, 3]]}', 422, "expected x: float32[rows, 2], got float32[1, 3]"),
        (b'{"instances": [[1, 2], [3]]}', 422, "ragged"),
        (b'{"instances": [["one", 2]]}', 422, "is no number"),
        (b'{"instances": [[1e39, 2]]}', 422, "beyond float32"),
        (b'{"instances": [[true, false]]}', 422, "not float32"),
    ],
)
def test_bad_tensors(tensors: tuple[Handler, Context], body: bytes, status: int, says: str) -> None:
    ((found, answer),) = _ask(*tensors, body)
    assert found == status, answer
    assert says in answer["error"]


def test_requests_of_tensors_do_not_see_each_other(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt2"
    deploypipe.export(Whole(), (torch.rand(3, 2),), format="pt2", path=path, dynamic={"x": {0: "rows"}})
    handler, context = load(path, tmp_path)
    one, other = _ask(handler, context, b'{"instances": [[1, 3]]}', b'{"instances": [[10, 20], [30, 40]]}')
    assert one[1]["predictions"] == [{"output": [-1.0, 1.0]}]
    assert other[1]["predictions"] == [{"output": [-15.0, -5.0]}, {"output": [5.0, 15.0]}]


def test_a_sample_with_another_answer_refuses_toload(artifacts: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    path.write_bytes(artifacts["torchscript"].read_bytes())
    facts = read_artifact(artifacts["torchscript"])
    assert facts.samples is not None
    other = Sample.of(facts.samples.inputs, [output + 0.001 for output in facts.samples.outputs])
    dataclasses.replace(facts, path=path, samples=other).write_sidecar()
    with pytest.raises(PackageError, match=r"fresh process: .*digits 1.0 does not answer .* differ by up to 0.001"):
        load(path, tmp_path)
    assert not list(tmp_path.glob("*.mar"))


@pytest.mark.parametrize("name", ["tiny.pt", "tiny.pt.json", "archived/contract/signature.py"])
def test_changed_files_refuse_toload(artifacts: dict[str, Path], tmp_path: Path, name: str) -> None:
    handler, context = load(artifacts["torchscript"], tmp_path)
    path = Path(context.system_properties["model_dir"]) / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ArchiveInvalid, match=f"{name} is not the file that was packaged"):
        handler.initialize(context)
