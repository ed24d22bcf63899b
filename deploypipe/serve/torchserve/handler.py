"""The TorchServe handler: its two hooks around the service that answers. Travels inside archives.

What `initialize` raises keeps the worker from ever becoming ready.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...contract.rejection import BAD_REQUEST, PHRASES, Rejection
from ..service.served_model import Body, Read, ServedModel
from . import wire
from .exposition import expose
from .metrics import WorkerMetrics, ages
from .worker_log import one_line_an_event

logger = logging.getLogger(__name__)


class Handler:
    def __init__(self, read: Read) -> None:
        self._read = read

    def initialize(self, context: Any) -> None:
        """Load and prove the archive. ArchiveInvalid when anything is not as it was packaged."""
        one_line_an_event()
        properties = context.system_properties
        gpu = properties.get("gpu_id")
        wire.install()
        self.model = ServedModel(
            Path(properties["model_dir"]),
            context.manifest,
            self._read,
            "cpu" if gpu is None else f"cuda:{gpu}",
            int(properties.get("batch_size") or 1),
        )
        model = self.model
        self.metrics = WorkerMetrics(model.name, model.version, model.artifact, model.sha256)
        expose()
        logger.info("%s %s is loaded and answers its packaged samples", model.name, model.version)
        # A line for each batch would fill the log; what matters is logged as a warning.
        logging.getLogger().setLevel(logging.WARNING)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """What TorchServe calls with a batch: one item a request in, one JSON body a request out."""
        began = time.perf_counter()
        replies = self.model.answer([_body_of(item) for item in data])
        for i, reply in enumerate(replies):
            if reply.status != 200:
                context.set_response_status(reply.status, PHRASES[reply.status], i)
            context.set_response_content_type(i, "application/json")
        outcomes = Counter((reply.status, reply.error) for reply in replies)
        self.metrics.batch(outcomes, time.perf_counter() - began, ages(context, len(data)))
        self.metrics.predicted(index for reply in replies for index in reply.predicted)
        return [reply.body for reply in replies]


def _body_of(item: Mapping[str, Any]) -> Body | Rejection:
    """What the client sent, out of what TorchServe makes of it: `body`, or a multipart form's field `data`."""
    body = item.get("body", item.get("data"))
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, bytes | bytearray):
        fields = [name for name in item if name not in ("body", "data")]
        found = f"form fields {fields}" if fields else "an empty body"
        return Rejection(
            BAD_REQUEST, f"found {found}; send the content as the whole body (curl -T FILE) or as the form field 'data'"
        )
    return body or Rejection(BAD_REQUEST, "the body is empty; accepted: an image, JSON, or a .npy file")
