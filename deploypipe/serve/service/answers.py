"""What the model gave for a request, and how that is written as JSON. Travels inside archives."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import orjson

from ...contract.protocol import to_lists, to_protocol
from ...contract.signature import Signature
from ...contract.tensors import Array
from .requests import Form, Request

Outputs = Sequence[Array]
"""The outputs of one run of the artifact, in the signature's order."""

Class = Mapping[str, Any]
"""The class of an image, its probability, and all probabilities: JSON-able."""


class Answer(NamedTuple):
    """What the artifact gave for one request, not yet rendered."""

    request: Request
    runs: Sequence[Outputs]
    classes: Sequence[Class] = ()
    """Of an image classifier: what is said of each row."""
    rows: slice = slice(None)
    """Of an image classifier: the request's rows of these."""

    @property
    def predicted(self) -> list[int]:
        """Of an image classifier: the class of each of the request's images."""
        return [row["class"] for row in self.classes[self.rows]]


class Reply(NamedTuple):
    """An HTTP answer: a status and a JSON body."""

    status: int
    body: bytes
    error: str = ""
    """With 500: the class of the Python exception."""
    predicted: Sequence[int] = ()
    """Of an image classifier: the class of each image."""


def classified(logits: Array) -> list[Class]:
    """What the logits, `float [n, classes]`, say of each row."""
    probabilities = softmax(logits)
    best = probabilities.argmax(axis=1)
    columns = best.tolist(), probabilities.max(axis=1).tolist(), probabilities.tolist()
    return [
        {"class": index, "probability": probability, "probabilities": row}
        for index, probability, row in zip(*columns, strict=True)
    ]


def softmax(logits: Array) -> Array:
    """`float32 [n, classes]` of logits `float [n, classes]`; NaN where they are not finite."""
    wide = logits.astype(np.float32)
    with np.errstate(invalid="ignore"):  # infinite logits
        powers = np.exp(wide - wide.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def render(answer: Answer, signature: Signature, name: str, version: str) -> bytes:
    """The JSON that answers the request, in the form that it was put in. ValueError for logits that are not finite."""
    request, runs = answer.request, answer.runs
    if request.form is Form.PROTOCOL:
        outputs = runs[0] if request.rows is None else [output[answer.rows] for output in runs[0]]
        named = dict(zip((spec.name for spec in signature.outputs), outputs, strict=True))
        document: dict[str, Any] = {"model_name": name, "model_version": version}
        if request.id is not None:
            document["id"] = request.id
        names = request.outputs or tuple(named)
        return to_json({**document, "outputs": [to_protocol(each, named[each]) for each in names]})
    if request.rows is not None:
        classes = answer.classes[answer.rows]
        if any(isnan(row["probability"]) for row in classes):
            raise ValueError("the logits are not finite")  # which JSON cannot say
        return to_json(classes[0] if request.form is Form.IMAGE else {"predictions": classes})
    output_names = tuple(spec.name for spec in signature.outputs)
    rows = zip(*runs[0], strict=True) if request.stacked else runs
    named_rows = [dict(zip(output_names, map(to_lists, row), strict=True)) for row in rows]
    return to_json({"predictions": named_rows})


def to_json(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document)
