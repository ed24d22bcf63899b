"""Bodies as a confused or hostile client sends them: noise, good ones damaged, and JSON of nearly the right shape."""

import io
import json

import numpy as np
from hypothesis import strategies as st
from PIL import Image


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
