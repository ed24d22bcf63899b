"""Whatever a client sends is answered with 200 or a 4xx of its own, and its neighbour with the truth."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from without_server import Context, load

from deploypipe.serve.handler import Handler


@pytest.fixture(scope="module")
def loaded(artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Handler, Context]:
    return load(artifacts["onnx"], tmp_path_factory.mktemp("fuzzed"))


def _image(format: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((2, 28, 28), np.uint8))
    return file.getvalue()


_PROTOCOL = {"inputs": [{"name": "pixels", "shape": [1, 1, 28, 28], "datatype": "UINT8", "data": [0] * 784}]}
WHOLE = [_image(format) for format in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")]
WHOLE += [_npy(), json.dumps({"instances": [[[0] * 28] * 28]}).encode(), json.dumps(_PROTOCOL).encode()]

_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_values = st.recursive(_leaves, lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(), one), max_leaves=9)
_keys = st.sampled_from(["name", "shape", "datatype", "data", "b64", "id", "outputs", "parameters"])
_items = st.dictionaries(_keys, _values | st.sampled_from(["pixels", "UINT8", "logits", [1, 1, 28, 28], [0] * 784]))
_documents = st.fixed_dictionaries(
    {}, optional={name: _values | _items | st.lists(_items) for name in ("instances", "inputs", "outputs", "id")}
)


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A good body with a few bytes changed, and perhaps its end cut off."""
    body = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 6))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(1, len(body)))] if draw(st.booleans()) else body)


bodies = st.binary(max_size=200) | _damaged() | _documents.map(lambda document: json.dumps(document).encode())


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(body=bodies)
def test_no_body_costs_more_than_its_own_4xx(
    loaded: tuple[Handler, Context], network: nn.Module, images: Tensor, body: bytes
) -> None:
    handler, context = loaded
    fresh = Context(context.manifest, context.system_properties)
    neighbour = json.dumps({"instances": images[:1].tolist()}).encode()
    answers: list[Any] = handler.handle([{"body": bytearray(body)}, {"body": bytearray(neighbour)}], fresh)
    first, second = map(json.loads, answers)
    assert fresh.statuses.get(0, 200) in (200, 400, 415, 422), first
    assert fresh.statuses.get(0, 200) == 200 or first["error"]
    wanted = network(images[:1]).softmax(1)[0]
    assert torch.allclose(torch.tensor(second["predictions"][0]["probabilities"]), wanted, atol=1e-5)
