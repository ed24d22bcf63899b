"""The TorchServe handler: four hooks, and every request of a batch gets its own answer. Travels inside archives.

`initialize` proves the archive: the digests of its files, the chain from the weights to the sidecar, then the packaged
samples through the loaded artifact. What it raises keeps the worker from ever becoming ready.
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from ...contract.protocol import disagreement, to_lists, to_protocol
from ...contract.records import from_document
from ...contract.rejection import PHRASES, UNPROCESSABLE, Rejection
from ...contract.seal import broken_link
from ...contract.signature import Signature, mismatches
from ...contract.tasks import IMAGE_CLASSIFICATION, image_shape
from ...contract.tensors import Array, Sample
from ...formats.session import Session
from ..service.requests import Form, PixelBatch, Request, body_of, read_image_request, read_tensor_request
from . import wire
from .exposition import expose
from .metrics import Metrics, Outcome, ages
from .worker_log import one_line_an_event

logger = logging.getLogger(__name__)

FAILED_REQUEST = "a request failed"
"""What the log says before a traceback that did not end the worker."""

Read = Callable[[Path, str, int | None], Session]
Failure = Rejection | Exception

MAX_ANSWER = 16 << 20
"""Bytes of one answer: TorchServe takes a larger one for a broken worker, and ends it."""

Run = Sequence[Array]
"""The outputs of one run of the artifact, in the signature's order."""


Class = Mapping[str, Any]
"""The class of an image, its probability, and all probabilities: JSON-able."""


class Answer(NamedTuple):
    """What the artifact gave for one request, not yet rendered."""

    request: Request
    runs: Sequence[Run]
    classes: Sequence[Class] = ()
    """Of an image classifier: what is said of each row."""
    rows: slice = slice(None)
    """Of an image classifier: the request's rows of these."""


class ArchiveInvalid(RuntimeError):
    """The archive is not what was packaged, or does not answer its samples: it must not serve."""


class Handler:
    def __init__(self, read: Read) -> None:
        self._read = read

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """What TorchServe calls with a batch: one item a request in, one JSON body a request out."""
        began = time.perf_counter()
        answers = self.inference(self.preprocess(data))
        bodies, outcomes = self.postprocess(answers, context)
        self.metrics.batch(Counter(outcomes), time.perf_counter() - began, ages(context, len(data)))
        answered = (answer for answer in answers if isinstance(answer, Answer))
        self.metrics.predicted(row["class"] for answer in answered for row in answer.classes[answer.rows])
        return bodies

    def initialize(self, context: Any) -> None:
        """Check digests and chain of proof, answer the packaged samples. ArchiveInvalid when anything differs."""
        one_line_an_event()
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        self.model_name: str = context.manifest["model"]["modelName"]
        self.model_version: str = context.manifest["model"]["modelVersion"]
        facts = context.manifest["deploypipe"]
        for name, wanted in facts["sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != wanted:
                raise ArchiveInvalid(f"{name} is not the file that was packaged: its sha256 differs")
        sidecar = json.loads((folder / facts["sidecar"]).read_text(encoding="utf-8"))
        if sidecar["sha256"] != facts["sha256"][facts["artifact"]]:
            raise ArchiveInvalid(f"{facts['artifact']} is not the file that its sidecar describes: its sha256 differs")
        self.signature = from_document(sidecar, Signature)
        self.batch: PixelBatch | None = None
        if sidecar["task"] == IMAGE_CLASSIFICATION:
            self.batch = PixelBatch(image_shape(self.signature), int(properties.get("batch_size") or 1))
        gpu = properties.get("gpu_id")
        wire.install()
        self.session = self._read(folder / facts["artifact"], "cpu" if gpu is None else f"cuda:{gpu}", 1)
        if problem := broken_link(sidecar, self.session):
            raise ArchiveInvalid(f"{facts['artifact']} is not proven equal to the trained model: {problem}")
        self._prove(from_document(sidecar["samples"], Sample), facts["tolerances"])
        self.metrics = Metrics(self.model_name, self.model_version, facts["artifact"], sidecar["sha256"])
        expose()
        logger.info("%s %s is loaded and answers its packaged samples", self.model_name, self.model_version)
        # A line for each batch would fill the log; what matters is logged as a warning.
        logging.getLogger().setLevel(logging.WARNING)

    def _prove(self, sample: Sample, tolerances: Sequence[Mapping[str, float]]) -> None:
        outputs = self._run(sample.inputs)
        specs = self.signature.outputs
        for spec, wanted, found, tolerance in zip(specs, sample.outputs, outputs, tolerances, strict=True):
            if problem := disagreement(wanted, found, tolerance["atol"], tolerance["rtol"]):
                raise ArchiveInvalid(
                    f"{self.model_name} {self.model_version} does not answer its packaged sample as it did then: "
                    f"output {spec.name!r}: {problem}"
                )

    def preprocess(self, data: Sequence[Mapping[str, Any]]) -> list[Request | Failure]:
        """Each body as a Request, its pixels decoded into the shared batch, or as what is wrong with it."""
        if self.batch is not None:
            self.batch.clear()
        return [self._each(self._parse, item) for item in data]

    def _parse(self, item: Mapping[str, Any]) -> Request:
        body = body_of(item)
        if self.batch is not None:
            return read_image_request(body, self.signature, self.batch)
        request = read_tensor_request(body, self.signature)
        for run in request.runs:
            if problems := mismatches(self.signature.inputs, run):
                raise Rejection(UNPROCESSABLE, "; ".join(problems))
        return request

    def inference(self, requests: Sequence[Request | Failure]) -> list[Answer | Failure]:
        """Run the artifact: once for all the images of the batch; for tensors once a run that a request asks for,
        since nothing says that rows of different requests do not see each other there."""
        answer = self._answer_tensors
        if self.batch is not None:
            answer = self._answer_images_alone
            if any(isinstance(request, Request) for request in requests):
                together = self._each(self._classified, self.batch.pixels)
                # Where the whole batch fails, what each request is worth alone still stands.
                if not isinstance(together, Exception):
                    answer = partial(_share, *together)
        return [self._each(answer, request) if isinstance(request, Request) else request for request in requests]

    def _answer_images_alone(self, request: Request) -> Answer:
        assert self.batch is not None
        logits, classes = self._classified(self.batch.pixels[request.rows])
        return Answer(request, [[logits]], classes)

    def _answer_tensors(self, request: Request) -> Answer:
        try:
            return Answer(request, [self._run(inputs) for inputs in request.runs])
        except MemoryError:
            raise
        except Exception as cause:
            # The artifact answered its samples, so it is these values or sizes that it cannot take.
            raise Rejection(UNPROCESSABLE, f"the model fails on these inputs: {_line(cause)}") from cause

    def _classified(self, pixels: Array) -> tuple[Array, list[Class]]:
        """The logits, `float [n, classes]`, and what they say of each row."""
        logits = self._run((pixels,))[0]
        probabilities = softmax(logits)
        best = probabilities.argmax(axis=1)
        columns = best.tolist(), probabilities.max(axis=1).tolist(), probabilities.tolist()
        return logits, [
            {"class": index, "probability": probability, "probabilities": row}
            for index, probability, row in zip(*columns, strict=True)
        ]

    def _run(self, inputs: Sequence[Array]) -> list[Array]:
        return self.session.run(inputs)

    def postprocess(self, answers: Sequence[Answer | Failure], context: Any) -> tuple[list[bytes], list[Outcome]]:
        """JSON bodies, and what became of each request; the status of each that is not answered with 200 is set."""
        bodies: list[bytes] = []
        outcomes: list[Outcome] = []
        for i, answer in enumerate(answers):
            body = answer if isinstance(answer, Exception) else self._each(self._body, answer)
            status, error = 200, ""
            if isinstance(body, Exception):
                status, error, message = 500, type(body).__name__, "the server failed on this request; its log says why"
                if isinstance(body, Rejection):
                    status, error, message = body.status, "", body.message
                context.set_response_status(status, PHRASES[status], i)
                body = _json({"error": message})
            context.set_response_content_type(i, "application/json")
            bodies.append(body)
            outcomes.append((status, error))
        return bodies, outcomes

    def _body(self, answer: Answer) -> bytes:
        body = self._render(answer)
        if len(body) > MAX_ANSWER:
            raise Rejection(
                UNPROCESSABLE,
                f"the answer has {len(body):,} bytes, at most {MAX_ANSWER:,} are sent; ask for fewer rows",
            )
        return body

    def _render(self, answer: Answer) -> bytes:
        request, runs = answer.request, answer.runs
        if request.form is Form.PROTOCOL:
            outputs = runs[0] if request.rows is None else [output[answer.rows] for output in runs[0]]
            named = dict(zip((spec.name for spec in self.signature.outputs), outputs, strict=True))
            document: dict[str, Any] = {"model_name": self.model_name, "model_version": self.model_version}
            if request.id is not None:
                document["id"] = request.id
            names = request.outputs or tuple(named)
            return _json({**document, "outputs": [to_protocol(name, named[name]) for name in names]})
        if request.rows is not None:
            classes = answer.classes[answer.rows]
            if any(isnan(row["probability"]) for row in classes):
                raise ValueError("the logits are not finite")  # which JSON cannot say
            return _json(classes[0] if request.form is Form.IMAGE else {"predictions": classes})
        names = tuple(spec.name for spec in self.signature.outputs)
        rows = zip(*runs[0], strict=True) if request.stacked else runs
        named_rows = [dict(zip(names, map(to_lists, row), strict=True)) for row in rows]
        return _json({"predictions": named_rows})

    @staticmethod
    def _each(step: Callable[[Any], Any], item: Any) -> Any:
        """`step(item)`; what it raises becomes this item's answer and no one else's."""
        try:
            return step(item)
        except Rejection as rejection:
            return rejection
        except Exception as cause:
            logger.exception(FAILED_REQUEST)
            return cause


def softmax(logits: Array) -> Array:
    """`float32 [n, classes]` of logits `float [n, classes]`; NaN where they are not finite."""
    wide = logits.astype(np.float32)
    with np.errstate(invalid="ignore"):  # infinite logits
        powers = np.exp(wide - wide.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _share(logits: Array, classes: Sequence[Class], request: Request) -> Answer:
    """The request's rows of what the whole batch gave."""
    return Answer(request, [[logits]], classes, request.rows or slice(None))


def _json(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document)


def _line(cause: BaseException) -> str:
    return str(cause).strip().partition("\n")[0] or type(cause).__name__
