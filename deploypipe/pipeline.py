"""The whole way in one call: train, evaluate, export, verify, package, serve, predict over HTTP, compare with eager."""

import io
import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
import torchinfo
from PIL import Image
from torch import Tensor, nn

from deploypipe import train as training
from deploypipe.artifact import IMAGE_CLASSIFICATION, Artifact, read_artifact, read_runner
from deploypipe.capture import argument_names, capture, reference_copy
from deploypipe.errors import DeploypipeError, PackageError, ParityError, UsageError, first_line
from deploypipe.export import Plan, Written, plan, suffix_of, write_each
from deploypipe.files import write_json
from deploypipe.formats import FORMATS
from deploypipe.models import entry_of
from deploypipe.parity import NO_OVERRIDES, Gate, Overrides, Report, image_probes
from deploypipe.runs import Run, open_run
from deploypipe.serve import server
from deploypipe.serve.archive import Archive
from deploypipe.serve.archive import package as build_archive
from deploypipe.serve.client import Client
from deploypipe.serve.record import Server, default_folder, recorded, tokens_of
from deploypipe.train import TrainConfig

PARITY_SCHEMA = "deploypipe.parity/1"
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
    if not set(entry_of(config.model).datasets) & {"digits"}:
        raise UsageError(f"`run` takes an image classifier, not {config.model}", "Use train, export, … one by one.")
    say("1/6 train")
    done = training.train(config, out, pictures=True, report=report, warn=warn)
    say(f"    {done.folder}: dataset {done.document['dataset']['name']}")
    say("2/6 export")
    rows = export_run(done, list(FORMATS), plan_run(done, _data_dir(config)))
    artifacts = [row.proven()[0] for row in rows]
    say("3/6 verify")
    reports = verify_run(done, [artifact.path for artifact in artifacts], _data_dir(config))
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


def plan_run(run: Run, data_dir: Path | None = None, overrides: Overrides = NO_OVERRIDES) -> Plan:
    """What the artifacts of a run's model must prove: an image classifier on test images and random pixels, any other
    on its example, values like it, and inputs that take its other ways."""
    entry = run.entry
    captured = capture(run.load_module(), entry.example(), entry.dynamic, entry.outputs)
    dataset = run.dataset(data_dir)
    test = dataset.test if dataset and entry.task == IMAGE_CLASSIFICATION else None
    probes = image_probes(test.inputs) if test else None
    return plan(captured, probes, run.provenance(), entry.task, test=test, overrides=overrides)


def export_run(run: Run, formats: Sequence[str], prepared: Plan) -> list[Written]:
    """The run's model in each of `formats`, below the run's `exports/`."""
    return write_each(prepared, {format: run.exports / f"model{suffix_of(format)}" for format in formats})


def run_of(folder: Path | None, artifact: Path | None) -> Run:
    """The run in `folder`; else the one that `artifact` lies in; else the newest."""
    if folder is None and artifact is not None and (artifact.parent.parent / "run.json").is_file():
        folder = artifact.parent.parent
    return open_run(folder)


def verify_run(
    run: Run,
    artifacts: Sequence[Path],
    data_dir: Path | None = None,
    device: str = "cpu",
    overrides: Overrides = NO_OVERRIDES,
) -> list[Report]:
    """Compare each artifact with the run's eager model and write the reports to the run's `parity.json`."""
    if not artifacts:
        raise UsageError(f"{run.folder} has no artifact to verify", "Write one: `deploypipe export --format onnx`.")
    gate = plan_run(run, data_dir, overrides).gate
    reports = [gate.examine(path, device) for path in artifacts]
    write_parity(run.parity, reports, weights_sha256=run.document["weights_sha256"], dataset=run.document["dataset"])
    return reports


def gate_for(
    module: nn.Module, example: tuple[Tensor, ...], artifact: Path, overrides: Overrides = NO_OVERRIDES
) -> Gate:
    """What the user's own artifact is held to, by the axes that it declares itself, whoever wrote it: the example,
    values like it at other sizes, and inputs that take the module's other ways."""
    names = argument_names(reference_copy(module), example)
    signature = read_runner(artifact).signature
    specs = signature.inputs if signature else ()
    dynamic = {
        name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
        for name, spec in zip(names, specs, strict=False)
    }
    return plan(
        capture(module, example, {name: axes for name, axes in dynamic.items() if axes}), overrides=overrides
    ).gate


def write_parity(path: Path, reports: Sequence[Report], **facts: Any) -> None:
    """`parity.json`: the verdict over all artifacts, and every comparison."""
    verdict = "passed" if all(report.passed for report in reports) else "failed"
    artifacts = [report.to_json() for report in reports]
    write_json(path, {"schema": PARITY_SCHEMA, "verdict": verdict, **facts, "artifacts": artifacts})


def package(artifact: Path | None, folder: Path | None, name: str | None, version: str, store: Path) -> Archive:
    """The archive of an artifact, or of the run's first one in the order of preference for serving."""
    weights = None
    if artifact is None or folder is not None:
        opened = open_run(folder)
        weights = opened.document["weights_sha256"]
        name = name or opened.model
        artifact = artifact or _preferred(opened)
    name = name or read_artifact(artifact, PackageError).provenance.get("model") or artifact.stem
    return build_archive(artifact, name, version, store, weights_sha256=weights)


def _preferred(opened: Run) -> Path:
    """ONNX first: the fastest on a CPU."""
    there = opened.artifacts()
    for format in ("onnx", *FORMATS):
        for path in there:
            if path.suffix == FORMATS[format].suffix:
                return path
    raise PackageError(f"{opened.folder} has no artifact to package", "Write one: `deploypipe export --format onnx`.")


def facts_of(archive: Archive) -> dict[str, str]:
    return {"path": str(archive.path), "name": archive.name, "version": archive.version, "format": archive.format,
            "sha256": archive.sha256}  # fmt: skip


def client_for(url: str, name: str | None = None) -> Client:
    """A client of the server at `url`. Of one that was started on this machine, the model's name and the token are
    known; UsageError when the name is not and was not given."""
    here = _started_here(url)
    names = sorted({archive.name for archive in here.archives}) if here else []
    if name is None:
        if len(names) != 1:
            served = f"it serves {', '.join(names)}" if names else "it was not started here"
            raise UsageError(f"which model of {url}? ({served})", "Name it with --name.")
        name = names[0]
    return Client(url, name, token=tokens_of(here).get("inference") if here else None)


def _started_here(url: str) -> Server | None:
    """The record of the server at `url`, if `serve` started it on this machine: another host's is not ours to know."""
    try:
        address = httpx.URL(url)
        host, port = address.host, address.port
    except (httpx.InvalidURL, ValueError) as cause:
        raise UsageError(f"{url!r} is no address of a server: {first_line(cause)}") from cause
    found = recorded(default_folder(port)) if port else None
    return found if found and host in {found.host, "127.0.0.1", "localhost", "::1"} else None


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
    dataset = opened.dataset(data_dir)
    assert dataset is not None
    images = dataset.test.inputs[:HTTP_IMAGES]
    with torch.no_grad():
        expected = opened.load_module()(images).softmax(1)
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


def png(image: torch.Tensor) -> bytes:
    """`uint8 [height, width]` as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image.numpy()).save(stream, "PNG")
    return stream.getvalue()


def layers_of(name: str) -> str:
    """The layer summary of a network, by torchinfo."""
    entry = entry_of(name)
    found = torchinfo.summary(entry.build(), input_data=list(entry.example()), verbose=0,
                              dtypes=[tensor.dtype for tensor in entry.example()])  # fmt: skip
    return str(found)


def _data_dir(config: TrainConfig) -> Path | None:
    return Path(config.data_dir) if config.data_dir else None
