"""A packed model that answers requests: read, run, render. Every request of a batch gets its own answer. Travels inside
archives.

It proves its archive before it answers anything: the digests of its files, the proof from the weights to the
sidecar, then the packaged samples through the loaded artifact.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...contract.protocol import disagreement
from ...contract.records import from_document
from ...contract.rejection import UNPROCESSABLE, Rejection
from ...contract.sample import Sample
from ...contract.seal import broken_link
from ...contract.signature import Signature
from ...contract.tasks import IMAGE_CLASSIFICATION, image_shape
from ...contract.tensors import Array
from ...errors import first_line
from ...formats.session import Session
from .answers import Answer, Class, Reply, classified, render, to_json
from .limits import MAX_ANSWER
from .requests import PixelBatch, Request, read_image_request, read_tensor_request

logger = logging.getLogger(__name__)

FAILED_REQUEST = "a request failed"
"""What the log says before a traceback that did not end the worker."""

Read = Callable[[Path, str, int | None], Session]
"""The reader of the artifact's format: path, device, threads."""
Body = bytes | bytearray
Failure = Rejection | Exception


class ArchiveInvalid(RuntimeError):
    """The archive is not what was packaged, or does not answer its samples: it must not serve."""


class ServedModel:
    def __init__(
        self, folder: Path, manifest: Mapping[str, Any], read: Read, device: str = "cpu", capacity: int = 1
    ) -> None:
        """The archive that is unpacked in `folder`, loaded on `device` and proven. `capacity`: how many images to
        expect in a batch. ArchiveInvalid where anything is not as it was packaged."""
        self.name: str = manifest["model"]["modelName"]
        self.version: str = manifest["model"]["modelVersion"]
        facts = manifest["deploypipe"]
        self.artifact: str = facts["artifact"]
        for name, wanted in facts["sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != wanted:
                raise ArchiveInvalid(f"{name} is not the file that was packaged: its sha256 differs")
        sidecar = json.loads((folder / facts["sidecar"]).read_text(encoding="utf-8"))
        self.sha256: str = sidecar["sha256"]
        """Of the artifact."""
        if self.sha256 != facts["sha256"][self.artifact]:
            raise ArchiveInvalid(f"{self.artifact} is not the file that its sidecar describes: its sha256 differs")
        self.signature = from_document(sidecar, Signature)
        self.batch: PixelBatch | None = None
        if sidecar["task"] == IMAGE_CLASSIFICATION:
            self.batch = PixelBatch(image_shape(self.signature), capacity)
        self.session = read(folder / self.artifact, device, 1)
        if problem := broken_link(sidecar, self.session):
            raise ArchiveInvalid(f"{self.artifact} is not proven equal to the trained model: {problem}")
        self._prove(from_document(sidecar["samples"], Sample), facts["tolerances"])

    def _prove(self, sample: Sample, tolerances: Sequence[Mapping[str, float]]) -> None:
        outputs = self.session.run(sample.inputs)
        specs = self.signature.outputs
        for spec, wanted, found, tolerance in zip(specs, sample.outputs, outputs, tolerances, strict=True):
            if problem := disagreement(wanted, found, tolerance["atol"], tolerance["rtol"]):
                raise ArchiveInvalid(
                    f"{self.name} {self.version} does not answer its packaged sample as it did then: "
                    f"output {spec.name!r}: {problem}"
                )

    def answer(self, bodies: Sequence[Body | Rejection]) -> list[Reply]:
        """The reply to each body of a batch. What an engine could not make a body of is a Rejection, which is the
        reply."""
        if self.batch is not None:
            self.batch.clear()
        return [self._reply(answer) for answer in self._run([_each(self._read, body) for body in bodies])]

    def _read(self, body: Body | Rejection) -> Request:
        """The request, its pixels decoded into the shared batch. Rejection for what cannot be one."""
        if isinstance(body, Rejection):
            raise body
        if self.batch is not None:
            return read_image_request(body, self.signature, self.batch)
        request = read_tensor_request(body, self.signature)
        for inputs in request.runs:
            if problems := self.signature.problems(inputs):
                raise Rejection(UNPROCESSABLE, "; ".join(problems))
        return request

    def _run(self, requests: Sequence[Request | Failure]) -> list[Answer | Failure]:
        """Run the artifact: once for all the images of the batch; for tensors once a run that a request asks for,
        since nothing says that rows of different requests do not see each other there."""
        answer = self._answer_tensors
        if self.batch is not None:
            answer = self._answer_images_alone
            if any(isinstance(request, Request) for request in requests):
                together = _each(self._classify, self.batch.pixels)
                # Where the whole batch fails, what each request is worth alone still stands.
                if not isinstance(together, Exception):
                    answer = partial(_share, *together)
        return [_each(answer, request) if isinstance(request, Request) else request for request in requests]

    def _answer_images_alone(self, request: Request) -> Answer:
        assert self.batch is not None
        logits, classes = self._classify(self.batch.pixels[request.rows])
        return Answer(request, [[logits]], classes)

    def _answer_tensors(self, request: Request) -> Answer:
        try:
            return Answer(request, [self.session.run(inputs) for inputs in request.runs])
        except MemoryError:
            raise
        except Exception as cause:
            # The artifact answered its samples, so it is these values or sizes that it cannot take.
            raise Rejection(UNPROCESSABLE, f"the model fails on these inputs: {first_line(cause)}") from cause

    def _classify(self, pixels: Array) -> tuple[Array, list[Class]]:
        """The logits, `float [n, classes]`, and what they say of each row."""
        logits = self.session.run((pixels,))[0]
        return logits, classified(logits)

    def _reply(self, answer: Answer | Failure) -> Reply:
        body = answer if isinstance(answer, Exception) else _each(self._render, answer)
        if isinstance(body, Rejection):
            return Reply(body.status, to_json({"error": body.message}))
        if isinstance(body, Exception):
            message = "the server failed on this request; its log says why"
            return Reply(500, to_json({"error": message}), type(body).__name__)
        assert isinstance(answer, Answer)
        return Reply(200, body, predicted=answer.predicted)

    def _render(self, answer: Answer) -> bytes:
        body = render(answer, self.signature, self.name, self.version)
        if len(body) > MAX_ANSWER:
            raise Rejection(
                UNPROCESSABLE,
                f"the answer has {len(body):,} bytes, at most {MAX_ANSWER:,} are sent; ask for fewer rows",
            )
        return body


def _each(step: Callable[[Any], Any], item: Any) -> Any:
    """`step(item)`; what it raises becomes this item's answer and no one else's."""
    try:
        return step(item)
    except Rejection as rejection:
        return rejection
    except Exception as cause:
        logger.exception(FAILED_REQUEST)
        return cause


def _share(logits: Array, classes: Sequence[Class], request: Request) -> Answer:
    """The request's rows of what the whole batch gave."""
    return Answer(request, [[logits]], classes, request.rows or slice(None))
