"""The whole way in one call: train, evaluate, export, verify, package, serve, predict over HTTP, compare with eager."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deploypipe import train as training
from deploypipe.client import Client
from deploypipe.contract.archive import Archive
from deploypipe.contract.run import Run
from deploypipe.contract.sidecar import Artifact
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.data import dataset_of
from deploypipe.errors import ParityError, UsageError
from deploypipe.export import export_run, plan_run
from deploypipe.formats import FORMATS
from deploypipe.models import entry_of
from deploypipe.models.trained import load_trained
from deploypipe.package import package
from deploypipe.parity.verdict import Report
from deploypipe.png import png
from deploypipe.serve.torchserve import lifecycle, stopping
from deploypipe.train import TrainConfig
from deploypipe.verify import Subjects, verify_run

HTTP_IMAGES = 100
HTTP_TOLERANCE = 1e-4
"""Largest difference of a served probability from eager's."""


@dataclass(frozen=True)
class HttpAgreement:
    """Test images sent over HTTP, and how the answers compare with the eager model's."""

    requests: int
    agreeing: int
    """Answers with eager's class and every probability within `HTTP_TOLERANCE`."""
    max_difference: float

    @property
    def passed(self) -> bool:
        return self.agreeing == self.requests and self.requests > 0


@dataclass(frozen=True)
class Summary:
    run: Run
    artifacts: tuple[tuple[Artifact, Report], ...]
    archive: Archive
    http: HttpAgreement

    def to_json(self) -> dict[str, Any]:
        document = self.run.document
        return {
            "run": str(self.run.folder),
            "model": self.run.model,
            "dataset": document["dataset"],
            "metrics": document["metrics"],
            "seconds_training": document["seconds"],
            "artifacts": [
                {"path": str(artifact.path), "format": artifact.format, "bytes": artifact.path.stat().st_size,
                 "sha256": artifact.sha256, **report.summary()}
                for artifact, report in self.artifacts
            ],
            "archive": self.archive.facts(),
            "http": {"requests": self.http.requests, "agreeing": self.http.agreeing,
                     "max_difference": self.http.max_difference},
        }  # fmt: skip


def run(
    config: TrainConfig,
    out: Path | None = None,
    *,
    fresh: bool = False,
    format: str = "onnx",
    store: Path = Path("model_store"),
    on_progress: training.Listener = lambda progress: None,
    say: Callable[[str], None] = lambda message: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Summary:
    """Everything from the dataset to checked HTTP answers; the server runs on a free loopback port and is stopped.

    Raises what the steps raise; ParityError when an artifact or an HTTP answer differs from eager.
    """
    if format not in FORMATS:
        raise UsageError(f"no format {format!r}", f"There are: {', '.join(FORMATS)}.")
    if entry_of(config.model).task != IMAGE_CLASSIFICATION:
        raise UsageError(f"`run` takes an image classifier, not {config.model}", "Use train, export, … one by one.")
    say("1/6 train")
    done = training.train(config, out, fresh=fresh, draw=True, on_progress=on_progress, warn=warn)
    say(f"    {done.folder}: dataset {done.document['dataset']['name']}")
    say("2/6 export")
    rows = export_run(done, list(FORMATS), plan_run(done, _data_dir(config)))
    artifacts = [row.proven()[0] for row in rows]
    say("3/6 verify")
    reports = verify_run(done, Subjects(tuple(artifact.path for artifact in artifacts)), _data_dir(config)).reports
    for proof in reports:
        proof.raise_if_failed()
    say("4/6 package")
    served = next(artifact for artifact in artifacts if artifact.format == format)
    archive = package(served.path, done.folder, store=store)
    say("5/6 serve")
    with tempfile.TemporaryDirectory(prefix="deploypipe-") as folder:
        # A store and a server of its own: what else is in the user's store, or on its ports, is not touched.
        alone = Path(folder) / "store"
        alone.mkdir()
        (alone / archive.path.name).write_bytes(archive.path.read_bytes())
        started = lifecycle.start(alone, port=0, folder=Path(folder) / "server")
        try:
            say("6/6 predict")
            http = compare_over_http(done, started.url, archive.name, _data_dir(config))
        finally:
            stopping.stop(folder=Path(folder) / "server")
    if not http.passed:
        raise ParityError(
            f"{http.requests - http.agreeing} of {http.requests} HTTP answers differ from eager "
            f"(largest difference of a probability {http.max_difference:.2e}, allowed {HTTP_TOLERANCE:g})"
        )
    return Summary(done, tuple(zip(artifacts, reports, strict=True)), archive, http)


def compare_over_http(opened: Run, url: str, name: str, data_dir: Path | None = None) -> HttpAgreement:
    """Send test images as PNG files, one a request, and compare classes and probabilities with the eager model's."""
    dataset = dataset_of(opened, data_dir)
    assert dataset is not None
    images = dataset.test.inputs[:HTTP_IMAGES]
    with torch.no_grad():
        expected = load_trained(opened)(images).softmax(1)
    with Client(url, name) as client:
        answers = client.predict([png(image[0]) for image in images])
    differences = [
        float((torch.tensor(answer.probabilities) - row).abs().max())
        for answer, row in zip(answers, expected, strict=True)
    ]
    agreeing = [
        answer.label == int(row.argmax()) and difference <= HTTP_TOLERANCE
        for answer, row, difference in zip(answers, expected, differences, strict=True)
    ]
    return HttpAgreement(len(answers), sum(agreeing), max(differences, default=math.nan))


def _data_dir(config: TrainConfig) -> Path | None:
    return Path(config.data_dir) if config.data_dir else None
