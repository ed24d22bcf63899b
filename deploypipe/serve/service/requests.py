"""One HTTP body → one request for the model. Travels inside archives.

What a body is, is read from its first bytes, not from its content type, which command-line clients seldom set.
"""

import base64
import binascii
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple, NoReturn

import numpy as np
import orjson

from ...contract.protocol import from_lists, from_protocol
from ...contract.rejection import BAD_REQUEST, UNPROCESSABLE, UNSUPPORTED_MEDIA_TYPE, Rejection
from ...contract.signature import Signature, TensorSpec
from ...contract.tensors import Array
from .images import NPY_MAGIC, Pixels, decode_image, pixels_from_lists, pixels_from_npy

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Form(Enum):
    """How the request was put, which decides how it is answered."""

    IMAGE = "one image"
    INSTANCES = "instances"
    PROTOCOL = "Open Inference Protocol"


class Request(NamedTuple):
    form: Form
    rows: slice | None = None
    """The rows of the shared pixel batch that are this request's; None for a model of tensors."""
    runs: tuple[tuple[Array, ...], ...] = ()
    """For a model of tensors: the inputs of each run that the request needs."""
    stacked: bool = False
    """The instances are the rows of one run."""
    id: str | None = None
    outputs: tuple[str, ...] = ()
    """The outputs asked for by name; empty for all."""


class PixelBatch:
    """One buffer, `uint8 [capacity, C, H, W]`, into which all requests of a batch are decoded."""

    def __init__(self, shape: tuple[int, ...], capacity: int) -> None:
        self.shape = shape
        self._buffer: Pixels = np.empty((max(capacity, 1), *shape), np.uint8)
        self._used = 0

    def clear(self) -> None:
        # A buffer that runtimes may still look into is not written to again: each batch gets its own.
        self._buffer = np.empty_like(self._buffer)
        self._used = 0

    def room(self, rows: int) -> Pixels:
        """A view of the next `rows` rows; they are taken only by `take`, so a failed decode leaves nothing."""
        if self._used + rows > len(self._buffer):
            grown = np.empty((self._used + rows, *self.shape), np.uint8)
            grown[: self._used] = self._buffer[: self._used]
            self._buffer = grown
        return self._buffer[self._used : self._used + rows]

    def take(self, rows: int) -> slice:
        self._used += rows
        return slice(self._used - rows, self._used)

    @property
    def pixels(self) -> Pixels:
        """What is taken, `uint8 [rows, C, H, W]`, without a copy."""
        return self._buffer[: self._used]


def read_image_request(body: bytes | bytearray, signature: Signature, batch: PixelBatch) -> Request:
    """An image, a `.npy` of pixels, or JSON with `instances` or `inputs`, decoded into `batch`."""
    if body.startswith(NPY_MAGIC):
        pixels = pixels_from_npy(body, batch.shape)
        batch.room(len(pixels))[...] = pixels
        return Request(Form.INSTANCES, batch.take(len(pixels)))
    if not _looks_like_json(body):
        decode_image(body, batch.room(1)[0])
        return Request(Form.IMAGE, batch.take(1))
    document = _json_object(body)
    if "inputs" in document:
        (pixels,) = from_protocol(document["inputs"], signature.inputs)
        if pixels.shape[1:] != batch.shape or pixels.ndim != 4 or not len(pixels):
            _unfit(signature.inputs[0], pixels)
        batch.room(len(pixels))[...] = pixels
        return Request(Form.PROTOCOL, batch.take(len(pixels)), **_protocol_options(document, signature))
    instances = _instances(document)
    room = batch.room(len(instances))
    for i, instance in enumerate(instances):
        where = f"instances[{i}]"
        if isinstance(instance, Mapping):
            try:
                decode_image(_base64(instance, where), room[i])
            except Rejection as rejection:
                raise Rejection(rejection.status, f"{where}: {rejection.message}") from rejection
        else:
            room[i] = pixels_from_lists(instance, batch.shape, where)
    return Request(Form.INSTANCES, batch.take(len(instances)))


def read_tensor_request(body: bytes | bytearray, signature: Signature) -> Request:
    """JSON with `instances` or `inputs`, by the signature.

    Instances are the rows of one run where every input and output has one symbol as its leading axis; elsewhere each
    instance is a run of its own.
    """
    accepted = f"by the inputs {', '.join(map(str, signature.inputs))}"
    if not _looks_like_json(body):
        raise Rejection(UNSUPPORTED_MEDIA_TYPE, f"this model takes JSON with 'instances' or 'inputs', {accepted}")
    document = _json_object(body)
    if "inputs" in document:
        run = from_protocol(document["inputs"], signature.inputs)
        return Request(Form.PROTOCOL, runs=(run,), **_protocol_options(document, signature))
    instances = [_named(instance, signature, i) for i, instance in enumerate(_instances(document))]
    if _row_wise(signature):
        run = tuple(
            from_lists([instance[spec.name] for instance in instances], spec.dtype, f"instances' {spec.name!r}")
            for spec in signature.inputs
        )
        return Request(Form.INSTANCES, runs=(run,), stacked=True)
    runs = tuple(
        tuple(from_lists(instance[spec.name], spec.dtype, f"instances[{i}] {spec.name!r}") for spec in signature.inputs)
        for i, instance in enumerate(instances)
    )
    return Request(Form.INSTANCES, runs=runs)


def _row_wise(signature: Signature) -> bool:
    leading = {spec.shape[0] if spec.shape else None for spec in (*signature.inputs, *signature.outputs)}
    return len(leading) == 1 and isinstance(leading.pop(), str)


def _named(instance: Any, signature: Signature, i: int) -> Mapping[str, Any]:
    names = [spec.name for spec in signature.inputs]
    if isinstance(instance, Mapping):
        if set(instance) != set(names):
            raise Rejection(UNPROCESSABLE, f"instances[{i}] names {list(instance)}; the inputs are {names}")
        return instance
    if len(names) != 1:
        raise Rejection(UNPROCESSABLE, f"instances[{i}] must be an object that names the inputs {names}")
    return {names[0]: instance}


def _looks_like_json(body: bytes | bytearray) -> bool:
    start = bytes(body[:64]).removeprefix(_BYTE_ORDER_MARK).lstrip(b" \t\r\n")
    return start[:1] in (b"{", b"[", b'"')


def _json_object(body: bytes | bytearray) -> dict[str, Any]:
    try:
        document = orjson.loads(body.removeprefix(_BYTE_ORDER_MARK))
    except ValueError as cause:
        raise Rejection(BAD_REQUEST, f"the body is no valid JSON: {cause}") from cause
    if not isinstance(document, dict) or ("instances" in document) == ("inputs" in document):
        raise Rejection(
            UNPROCESSABLE, "the JSON must be an object with either 'instances' or 'inputs' (Open Inference Protocol v2)"
        )
    return document


def _instances(document: Mapping[str, Any]) -> list[Any]:
    instances = document["instances"]
    if not isinstance(instances, list) or not instances:
        raise Rejection(UNPROCESSABLE, "'instances' must be a list of at least one instance")
    return instances


def _base64(instance: Mapping[str, Any], where: str) -> bytes:
    text = instance.get("b64")
    if set(instance) != {"b64"} or not isinstance(text, str):
        raise Rejection(UNPROCESSABLE, f'{where} must be nested pixel lists or {{"b64": "…"}}')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise Rejection(UNPROCESSABLE, f"{where} is no valid base64: {cause}") from cause


def _protocol_options(document: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    """The protocol's `id`, and the names under `outputs`."""
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Rejection(UNPROCESSABLE, "'id' must be a string")
    known = [spec.name for spec in signature.outputs]
    wanted = document.get("outputs", [])
    if not isinstance(wanted, list) or not all(isinstance(item, Mapping) for item in wanted):
        raise Rejection(UNPROCESSABLE, f"'outputs' must be a list of objects with a 'name' of {known}")
    names = [item.get("name") for item in wanted]
    if not all(name in known for name in names):
        raise Rejection(UNPROCESSABLE, f"'outputs' names {names}; there are {known}")
    return {"id": identity, "outputs": tuple(map(str, names))}


def _unfit(spec: TensorSpec, array: Array) -> NoReturn:
    raise Rejection(UNPROCESSABLE, f"input {spec.name!r} has shape {list(array.shape)}; accepted: {spec}")
