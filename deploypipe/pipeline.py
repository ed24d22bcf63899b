"""The whole way in one call: train, evaluate, export, verify, package, serve, predict over HTTP, compare with eager."""

import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchinfo

from deploypipe import train as training
from deploypipe.contract.run import Run, folder_of, run_of
from deploypipe.contract.sidecar import Artifact
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.data import dataset_of
from deploypipe.errors import DeploypipeError, PackageError, ParityError, UsageError
from deploypipe.export import export_run, plan_run
from deploypipe.formats import FORMATS
from deploypipe.formats.loading import read_artifact
from deploypipe.models import entry_of
from deploypipe.models.trained import load_trained
from deploypipe.parity import Report
from deploypipe.png import png
from deploypipe.quantize import TARGET as ROUNDED
from deploypipe.serve import server
from deploypipe.serve.archive import Archive
from deploypipe.serve.archive import package as build_archive
from deploypipe.serve.client import Client
from deploypipe.train import TrainConfig
from deploypipe.verification import Subjects, verify_run

HTTP_IMAGES = 100
AT_ONCE = 16
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
            "archive": facts_of(self.archive),
            "http": {"requests": self.http.requests, "agreeing": self.http.agreeing,
                     "max_difference": self.http.max_difference},
        }  # fmt: skip


def run(
    config: TrainConfig,
    out: Path | None = None,
    *,
    format: str = "onnx",
    store: Path = Path("model_store"),
    report: training.Report = lambda progress: None,
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
    done = training.train(config, out, pictures=True, report=report, warn=warn)
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
    archive = package(served.path, done.folder, None, "1.0", store)
    say("5/6 serve")
    with tempfile.TemporaryDirectory(prefix="deploypipe-") as folder:
        # A store and a server of its own: what else is in the user's store, or on its ports, is not touched.
        alone = Path(folder) / "store"
        alone.mkdir()
        (alone / archive.path.name).write_bytes(archive.path.read_bytes())
        started = server.start(alone, port=0, folder=Path(folder) / "server")
        try:
            say("6/6 predict")
            http = compare_over_http(done, started.url, archive.name, _data_dir(config))
        finally:
            server.stop(folder=Path(folder) / "server")
    if not http.passed:
        raise ParityError(
            f"{http.requests - http.agreeing} of {http.requests} HTTP answers differ from eager "
            f"(largest difference of a probability {http.max_difference:.2e}, allowed {HTTP_TOLERANCE:g})"
        )
    return Summary(done, tuple(zip(artifacts, reports, strict=True)), archive, http)


def package(artifact: Path | None, folder: Path | None, name: str | None, version: str, store: Path) -> Archive:
    """The archive of an artifact, or of the run's first one in the order of preference for serving. With a run, which
    is the one that the artifact lies in unless `folder` says another, its weights must be that run's."""
    opened = None
    if artifact is None or folder is not None or folder_of(artifact):
        opened = run_of(folder, artifact)
        artifact = artifact or _preferred(opened)
    name = name or _name(artifact)
    return build_archive(artifact, name, version, store, trained=opened)


def _name(artifact: Path) -> str:
    """That of the network; what is rounded is named as such."""
    try:
        facts = read_artifact(artifact, PackageError)
    except ParityError as cause:
        raise PackageError(cause.message, cause.remedy) from cause
    model = facts.provenance.get("model") or facts.path.name.partition(".")[0]
    return "-".join(filter(None, (model, facts.precision)))


def _preferred(opened: Run) -> Path:
    """ONNX first: the fastest on a CPU. What is not eager's equal is taken only if it is named."""
    there = [path for path in opened.artifacts() if path.name != ROUNDED]
    for format in ("onnx", *FORMATS):
        for path in there:
            if path.suffix == FORMATS[format].suffix:
                return path
    raise PackageError(f"{opened.folder} has no artifact to package", "Write one: `deploypipe export --format onnx`.")


def facts_of(archive: Archive) -> dict[str, str]:
    return {"path": str(archive.path), "name": archive.name, "version": archive.version, "format": archive.format,
            "precision": archive.precision, "sha256": archive.sha256}  # fmt: skip


def predict(client: Client, files: Sequence[Path]) -> list[dict[str, Any]]:
    """The server's answer to each file, or {"error": …}: images, arrays of pixels (`.npy`), or requests written down as
    JSON (see the README's HTTP section). Raises the first error when no file was answered."""
    errors: list[DeploypipeError] = []

    def one(file: Path) -> dict[str, Any]:
        try:
            if file.suffix in (".json", ".npy"):
                return client.ask(file)
            return client.predict([file])[0].to_json()
        except DeploypipeError as error:
            errors.append(error)
            return {"error": str(error), "exit_code": error.exit_code}

    with ThreadPoolExecutor(AT_ONCE) as pool:  # together, so that the server can batch them
        answers = list(pool.map(one, files))
    if len(errors) == len(answers):
        raise errors[0]
    return answers


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


def layers_of(name: str) -> str:
    """The layer summary of a network, by torchinfo."""
    entry = entry_of(name)
    found = torchinfo.summary(entry.build(), input_data=list(entry.example()), verbose=0,
                              dtypes=[tensor.dtype for tensor in entry.example()])  # fmt: skip
    return str(found)


def _data_dir(config: TrainConfig) -> Path | None:
    return Path(config.data_dir) if config.data_dir else None
