"""The whole way in one call: train, evaluate, export, verify, package, serve, predict over HTTP, compare with eager."""

import io
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchinfo
from PIL import Image
from torch import Tensor, nn

from deploypipe import train as training
from deploypipe.anatomy import anatomy_of
from deploypipe.artifact import IMAGE_CLASSIFICATION, Artifact, read_artifact, read_runner
from deploypipe.capture import Axes, argument_names, capture, reference_copy
from deploypipe.errors import DeploypipeError, PackageError, ParityError, UsageError
from deploypipe.export import Plan, Written, plan, suffix_of, write_each
from deploypipe.files import write_json
from deploypipe.formats import FORMATS
from deploypipe.models import entry_of
from deploypipe.parity import NO_OVERRIDES, Finding, Gate, Overrides, Report, image_probes
from deploypipe.parity.reproduction import write_reproduction
from deploypipe.runs import Run, open_run
from deploypipe.serve import server
from deploypipe.serve.archive import Archive
from deploypipe.serve.archive import package as build_archive
from deploypipe.serve.client import Client
from deploypipe.serve.record import started_here, tokens_of
from deploypipe.serve.runners import ServingRunner, archive_runner, server_runner
from deploypipe.signature import TensorSpec
from deploypipe.train import TrainConfig

PARITY_SCHEMA = "deploypipe.parity/2"
REPRODUCTION = "reproduce.py"
NOT_SERVED: Mapping[str, ServingRunner] = {}
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
    done = training.train(config, out, report=report, warn=warn)
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
    return open_run(folder or (_folder_of(artifact) if artifact else None))


def _folder_of(artifact: Path) -> Path | None:
    """The run that the artifact lies in."""
    folder = artifact.parent.parent
    return folder if (folder / "run.json").is_file() else None


def verify_run(
    run: Run,
    artifacts: Sequence[Path],
    data_dir: Path | None = None,
    device: str = "cpu",
    overrides: Overrides = NO_OVERRIDES,
    served: Mapping[str, ServingRunner] = NOT_SERVED,
) -> list[Report]:
    """Compare each artifact, and each of `served`, with the run's eager model and write the reports to the run's
    `parity.json`."""
    if not artifacts and not served:
        raise UsageError(f"{run.folder} has no artifact to verify", "Write one: `deploypipe export --format onnx`.")
    reports = examine(plan_run(run, data_dir, overrides).gate, artifacts, device, served)
    write_report(run.parity, reports, weights_sha256=run.document["weights_sha256"], dataset=run.document["dataset"])
    return reports


def examine(
    gate: Gate, artifacts: Sequence[Path], device: str = "cpu", served: Mapping[str, ServingRunner] = NOT_SERVED
) -> list[Report]:
    """A report on each artifact and on each of `served`, by its title. ServingError when a server does not answer."""
    return [
        *(gate.examine(path, device) for path in artifacts),
        *(_examine_served(gate, title, runner) for title, runner in served.items()),
    ]


def _examine_served(gate: Gate, title: str, runner: ServingRunner) -> Report:
    reasons = [runner.too_large(probe.inputs) for probe in gate.probes]
    sent = tuple(probe for probe, reason in zip(gate.probes, reasons, strict=True) if not reason)
    report = replace(gate, probes=sent).examine_runner(runner, title)
    report = replace(report, evidence=None)  # which is for a script about a file
    unsent = list(filter(None, reasons))
    if not unsent:
        return report
    detail = f"{len(unsent)} of {len(reasons)} probes are not sent; of the first, {unsent[0]}"
    return replace(report, findings=(*report.findings, Finding("request size", True, detail)))


@contextmanager
def serving(
    archive: Path | None, url: str | None, name: str | None, device: str = "cpu", artifact: Path | None = None
) -> Iterator[dict[str, ServingRunner]]:
    """By title, what answers requests as an artifact would: the handler in `archive`, and the model `name` of the
    server at `url`. Of a server that was not started here, `artifact` says what its model takes and returns."""
    found: dict[str, ServingRunner] = {}
    with ExitStack() as stack:
        if archive is not None:
            found[str(archive)] = stack.enter_context(archive_runner(archive, device))
        if url is not None:
            client = client_for(url, name)
            like = read_runner(artifact).signature if artifact else None
            found[f"{client.name} at {client.url}"] = stack.enter_context(server_runner(client, like))
        yield found


def inputs_of(artifact: Path) -> Sequence[TensorSpec]:
    """What an artifact declares to take, whoever wrote it."""
    known = read_runner(artifact).signature
    return known.inputs if known else anatomy_of(artifact).inputs


def gate_for(
    module: nn.Module,
    example: tuple[Tensor, ...],
    declared: Sequence[TensorSpec],
    dynamic: Axes | None = None,
    overrides: Overrides = NO_OVERRIDES,
) -> Gate:
    """What an artifact of the user's own module is held to, whoever wrote it: the example, values like it at other
    sizes, and inputs that take the module's other ways. `dynamic` says which axes must be free; else those are that the
    artifact declared."""
    if dynamic is None:
        named = zip(argument_names(reference_copy(module), example), declared, strict=False)
        dynamic = {name: axes for name, spec in named if (axes := symbols_of(spec))}
    prepared = plan(capture(module, example, dynamic), overrides=overrides)
    return replace(prepared.gate, signature=prepared.captured.signature)


def symbols_of(spec: TensorSpec) -> dict[int, str]:
    return {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}


def write_report(path: Path, reports: Sequence[Report], **facts: Any) -> None:
    """`parity.json`: the verdict over all artifacts, and every comparison; beside it `reproduce.py` for the first one
    that failed, which shows the difference without deploypipe."""
    verdict = "passed" if all(report.passed for report in reports) else "failed"
    artifacts = [report.to_json() for report in reports]
    write_json(path, {"schema": PARITY_SCHEMA, "verdict": verdict, **facts, "artifacts": artifacts})
    script = path.with_name(REPRODUCTION)
    script.unlink(missing_ok=True)
    for report in reports:
        if report.evidence:
            evidence = report.evidence
            write_reproduction(
                script, Path(report.artifact), evidence.probe.inputs, evidence.expected, evidence.names,
                evidence.tolerances, report.culprit,
            )  # fmt: skip
            return


def package(artifact: Path | None, folder: Path | None, name: str | None, version: str, store: Path) -> Archive:
    """The archive of an artifact, or of the run's first one in the order of preference for serving. With a run, which
    is the one that the artifact lies in unless `folder` says another, its weights must be that run's."""
    opened = None
    if artifact is None or folder is not None or _folder_of(artifact):
        opened = run_of(folder, artifact)
        name = name or opened.model
        artifact = artifact or _preferred(opened)
    name = name or read_artifact(artifact, PackageError).provenance.get("model") or artifact.stem
    return build_archive(artifact, name, version, store, trained=opened)


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
    here = started_here(url)
    names = sorted({archive.name for archive in here.archives}) if here else []
    if name is None:
        if len(names) != 1:
            served = f"it serves {', '.join(names)}" if names else "it was not started here"
            raise UsageError(f"which model of {url}? ({served})", "Name it with --name.")
        name = names[0]
    return Client(url, name, token=tokens_of(here).get("inference") if here else None)


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
