"""Verify: files, an archive and a server against the eager model, in one report.

They are one chain: the artifact of an export, the archive that carries it, the endpoint that serves that.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from deploypipe.capture import capture
from deploypipe.client import client_for
from deploypipe.contract.run import Run
from deploypipe.contract.signature import Axes, TensorSpec
from deploypipe.eager import argument_names, reference_copy
from deploypipe.errors import UsageError
from deploypipe.export import plan, plan_run
from deploypipe.files import write_json
from deploypipe.formats.reading import inspect_artifact, read_runner
from deploypipe.formats.runner import Runner
from deploypipe.formats.torch_session import to_array
from deploypipe.parity import NO_OVERRIDES, Finding, Gate, Overrides, Report
from deploypipe.parity.reproduction import write_reproduction
from deploypipe.serve.sessions import ServingSession, archive_session, server_session

SCHEMA = "deploypipe.parity/2"
REPRODUCTION = "reproduce.py"


@dataclass(frozen=True)
class Subjects:
    """What is verified."""

    artifacts: tuple[Path, ...] = ()
    archive: Path | None = None
    """Through the handler inside it."""
    url: str | None = None
    """A server, over HTTP."""
    name: str | None = None
    """Its model; None is the one that `serve` serves there."""
    device: str = "cpu"

    def __bool__(self) -> bool:
        return bool(self.artifacts or self.archive or self.url)


@dataclass(frozen=True)
class Verified:
    reports: tuple[Report, ...]
    document: Path
    """`parity.json`: the verdict over all, and every comparison."""
    script: Path | None
    """`reproduce.py` beside it, for the first file that differs."""


def verify_run(
    run: Run, subjects: Subjects, data_dir: Path | None = None, overrides: Overrides = NO_OVERRIDES
) -> Verified:
    """Compare the subjects with the run's eager model; the run's `parity.json` says what came of it."""
    if not subjects:
        raise UsageError(f"{run.folder} has no artifact to verify", "Write one: `deploypipe export --format onnx`.")
    weights = str(run.document["weights_sha256"])
    gate = replace(plan_run(run, data_dir, overrides).gate, weights_sha256=weights)
    # What a server takes is what the run's own artifacts take.
    like = next(iter((*subjects.artifacts, *run.artifacts())), None)
    with _serving(subjects, like) as served:
        reports = _examine(gate, subjects, served)
    return _written(run.parity, reports, weights_sha256=weights, dataset=run.document["dataset"])


def verify_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    subjects: Subjects,
    dynamic: Axes | None = None,
    overrides: Overrides = NO_OVERRIDES,
) -> Verified:
    """Compare the subjects with the user's own `module`; the report lies beside the first of them."""
    artifact = next(iter(subjects.artifacts), None)
    with _serving(subjects, artifact) as served:
        declared = inputs_of(artifact) if artifact else next(iter(served.values())).inputs
        reports = _examine(gate_for(module, example, declared, dynamic, overrides), subjects, served)
    beside = artifact or subjects.archive or Path(type(module).__name__)
    return _written(beside.with_name(f"{beside.name}.parity.json"), reports)


def inputs_of(artifact: Path) -> Sequence[TensorSpec]:
    """What an artifact declares to take, whoever wrote it."""
    known = read_runner(artifact).signature
    return known.inputs if known else inspect_artifact(artifact).inputs


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
        dynamic = {name: axes for name, spec in named if (axes := _symbols_of(spec))}
    prepared = plan(capture(module, example, dynamic), overrides=overrides)
    return replace(prepared.gate, signature=prepared.captured.signature)


def _symbols_of(spec: TensorSpec) -> dict[int, str]:
    return {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}


@contextmanager
def _serving(subjects: Subjects, like: Path | None) -> Iterator[dict[str, ServingSession]]:
    """By title, what answers requests as an artifact would. `like` says what the model of a server takes and returns
    that was not started here."""
    found: dict[str, ServingSession] = {}
    with ExitStack() as stack:
        if subjects.archive is not None:
            archive = archive_session(subjects.archive, subjects.device)
            found[str(subjects.archive)] = stack.enter_context(archive)
        if subjects.url is not None:
            client = client_for(subjects.url, subjects.name)
            known = read_runner(like) if like else None
            runner = server_session(client, known.signature, known.precision) if known else server_session(client)
            found[f"{client.name} at {client.url}"] = stack.enter_context(runner)
        yield found


def _examine(gate: Gate, subjects: Subjects, served: dict[str, ServingSession]) -> list[Report]:
    """ServingError when a server does not answer."""
    return [
        *(gate.examine(path, subjects.device) for path in subjects.artifacts),
        *(examine_served(gate, title, runner) for title, runner in served.items()),
    ]


def examine_served(gate: Gate, title: str, session: ServingSession) -> Report:
    """The probes that one request can carry each; how many are not sent is a finding. ServingError when nobody
    answers."""
    reasons = [session.too_large(list(map(to_array, probe.inputs))) for probe in gate.probes]
    sent = tuple(probe for probe, reason in zip(gate.probes, reasons, strict=True) if not reason)
    report = replace(gate, probes=sent).examine_runner(Runner(session), title)
    report = replace(report, evidence=None)  # which is for a script about a file
    unsent = list(filter(None, reasons))
    if not unsent:
        return report
    detail = f"{len(unsent)} of {len(reasons)} probes are not sent; of the first, {unsent[0]}"
    return replace(report, findings=(*report.findings, Finding("request size", True, detail)))


def _written(path: Path, reports: Sequence[Report], **facts: Any) -> Verified:
    verdict = "passed" if all(report.passed for report in reports) else "failed"
    artifacts = [report.to_json() for report in reports]
    write_json(path, {"schema": SCHEMA, "verdict": verdict, **facts, "artifacts": artifacts})
    script = path.with_name(REPRODUCTION)
    script.unlink(missing_ok=True)
    for report in reports:
        if report.evidence:
            evidence = report.evidence
            write_reproduction(
                script, Path(report.artifact), evidence.probe.inputs, evidence.expected, evidence.names,
                evidence.tolerances, report.culprit,
            )  # fmt: skip
            return Verified(tuple(reports), path, script)
    return Verified(tuple(reports), path, None)
