"""Verify: files, an archive and a server against the eager model.

The archive carries an artifact of an export, and the endpoint serves the archive: all are compared on the same probes,
and none of it needs the compiler. Inputs that take further branch outcomes were searched for at export; the sidecar
keeps those that are small, and they are compared on here too. A file without a sidecar is compared on drawn probes
alone.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from torch import Tensor, nn

from deploypipe.contract.call import Call, CallForm
from deploypipe.contract.run import Run
from deploypipe.contract.sidecar import Artifact, sidecar_of
from deploypipe.contract.signature import Axes, Signature, TensorSpec
from deploypipe.contract.sizes import declared_limits
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.data import dataset_of
from deploypipe.eager import check_inputs, input_names, title_of
from deploypipe.errors import DeploypipeError, UsageError
from deploypipe.explicit import RANDOM_REMEDY, as_captured
from deploypipe.files import write_json
from deploypipe.flat_module import Example, as_call, flat_call, module_of_form, tensors_of_call
from deploypipe.formats.reading import inspect_artifact, read_artifact, read_runner
from deploypipe.formats.torch_session import to_tensor
from deploypipe.models import entry_of
from deploypipe.models.trained import load_trained
from deploypipe.original import check_copy, untouched
from deploypipe.parity.budget import BY_MODEL, Budget
from deploypipe.parity.eager_signature import input_specs, signature_of
from deploypipe.parity.gate import Gate, usable
from deploypipe.parity.own_files import SCHEMA, document_for, free_path, is_own_document, remove_own, script_for
from deploypipe.parity.probes import (
    FOUND,
    GivenProbe,
    Probe,
    drawn_probes,
    found_probe,
    image_probes,
    non_finite_probes,
    row_probes,
)
from deploypipe.parity.reference import Reference
from deploypipe.parity.reproduction import write_reproduction
from deploypipe.parity.tolerances import NO_OVERRIDES, Overrides
from deploypipe.parity.verdict import Report
from deploypipe.served import Served, declared_by, examine_answering, serving, signature_known


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
    headers: Mapping[str, str] = field(default_factory=dict)
    """What goes with each request to it: a credential, a host."""
    device: str = "cpu"

    def __bool__(self) -> bool:
        return bool(self.artifacts or self.archive or self.url)


@dataclass(frozen=True)
class Terms:
    """How the subjects are compared."""

    overrides: Overrides = NO_OVERRIDES
    seed: int = 0
    """Of the values that are drawn."""
    budget: Budget = BY_MODEL


@dataclass(frozen=True)
class Verified:
    reports: tuple[Report, ...]
    document: Path
    """The verdict over all, and every comparison: `parity.json` of a run, `<artifact>.parity.json` otherwise."""
    script: Path | None
    """`<artifact>.reproduce.py`, for the first file that differs."""


@overload
def verify(
    module: nn.Module,
    artifact: str | Path,
    probes: Iterable[GivenProbe] | None = None,
    *,
    example: Example | None = None,
    dynamic: Axes | None = None,
    device: str = "cpu",
    overrides: Overrides = NO_OVERRIDES,
    seed: int = 0,
    budget: Budget = BY_MODEL,
) -> Report: ...


@overload
def verify(
    module: nn.Module,
    artifact: Subjects,
    probes: Iterable[GivenProbe] | None = None,
    *,
    example: Example | None = None,
    dynamic: Axes | None = None,
    overrides: Overrides = NO_OVERRIDES,
    seed: int = 0,
    budget: Budget = BY_MODEL,
) -> tuple[Report, ...]: ...


def verify(
    module: nn.Module,
    artifact: str | Path | Subjects,
    probes: Iterable[GivenProbe] | None = None,
    *,
    example: Example | None = None,
    dynamic: Axes | None = None,
    device: str = "cpu",
    overrides: Overrides = NO_OVERRIDES,
    seed: int = 0,
    budget: Budget = BY_MODEL,
) -> Report | tuple[Report, ...]:
    """Compare an artifact, whoever wrote it, with the eager `module`, and check what is in its file; the verdict is in
    the Report, nothing is raised for a difference. For `Subjects` there is a Report for each of them.

    `probes`: the calls to compare on, each a tuple of arguments, a dict of keyword arguments or a `Call`. Without them
    it is the `example` (without one, the sample of the artifact's sidecar), values like it at other sizes, and the
    inputs that were found at export. `dynamic`: the axes that must be free, by input and axis; without it those that
    the artifact declares. `overrides`: other tolerances. `seed`: of the values that are drawn. `budget`: what may be
    spent; the Report says what it had no room for.

    ParityError for a file that cannot be loaded; UsageError for inputs that the eager module itself does not take, and
    where there is nothing to compare on.
    """
    subjects = artifact if isinstance(artifact, Subjects) else Subjects((Path(artifact),), device=device)
    reports = _reports(module, subjects, probes, example, dynamic, Terms(overrides, seed, budget))
    for line in (remark for report in reports for remark in report.remarks):
        warnings.warn(line, stacklevel=2)
    return reports if isinstance(artifact, Subjects) else reports[0]


def _reports(
    module: nn.Module,
    subjects: Subjects,
    probes: Iterable[GivenProbe] | None,
    example: Example | None,
    dynamic: Axes | None,
    terms: Terms,
) -> tuple[Report, ...]:
    first = next(iter(subjects.artifacts), None)
    with _serving(subjects, first) as served, untouched(module):
        known = read_runner(first).signature if first else signature_known(next(iter(served.values())))
        if probes is not None:
            probes = list(probes)
            calls = [as_call(probe, "a probe") for probe in probes if not isinstance(probe, Probe | Tensor)]
            adapted, form, _ = _as_captured(module, next(iter(calls), None), known)
            reference = Reference(adapted, terms.budget)
            gate = Gate(reference, tuple(usable(reference, probes, form)[0]), overrides=terms.overrides)
        else:
            sidecars = _sidecars(subjects.artifacts)
            call = as_call(example, "the example") if example is not None else None
            adapted, _, inputs = _as_captured(module, call, known)
            sample = inputs or _sample_of(sidecars)
            limits: Sequence[str] = stated_limits(sidecars)
            if first:
                declared = inputs_of(first)
            else:
                declared, limits = declared_by(next(iter(served.values())), adapted, sample, limits)
            gate = gate_for(adapted, sample, declared, dynamic, terms, _found(sidecars), limits)
        if gate.probes:
            check_copy(adapted, gate.probes[0].inputs)
        return _examine(gate, subjects, served)


def verify_module(
    module: nn.Module,
    example: Example,
    subjects: Subjects,
    dynamic: Axes | None = None,
    terms: Terms = Terms(),
    probes: Iterable[GivenProbe] | None = None,
) -> Verified:
    """Compare the subjects with the user's own `module`, on `probes` or else on what is drawn; the report lies beside
    the first of them."""
    reports = _reports(module, subjects, probes, example, dynamic, terms)
    beside = next(iter(subjects.artifacts), None) or subjects.archive or Path(type(module).__name__)
    return _written(document_for(beside), reports)


def verify_run(run: Run, subjects: Subjects, data_dir: Path | None = None, terms: Terms = Terms()) -> Verified:
    """Compare the subjects with the run's eager model; the run's `parity.json` says what came of it."""
    if not subjects:
        raise UsageError(f"{run.folder} has no artifact to verify", "Write one: `deploypipe export --format onnx`.")
    entry, weights = entry_of(run.model), str(run.document["weights_sha256"])
    dataset = dataset_of(run, data_dir)
    test = dataset.test if dataset and entry.task == IMAGE_CLASSIFICATION else None
    known = (*subjects.artifacts, *run.artifacts())
    reference, example = Reference(load_trained(run), terms.budget), check_inputs(entry.example(), "the example")
    specs = input_specs(reference.module, example, entry.dynamic or {})
    sidecars = _sidecars(known)
    limits = stated_limits(sidecars)
    drawn = image_probes(test.inputs, seed=terms.seed) if test else drawn_probes(specs, example, limits, terms.seed)
    gate = _gate(reference, specs, [*drawn, *_found(sidecars)], terms, limits)
    gate = replace(gate, test=test, weights_sha256=weights)
    # What a server takes is what the run's own artifacts take.
    with _serving(subjects, next(iter(known), None)) as served:
        reports = _examine(gate, subjects, served)
    document = free_path(run.parity, is_own_document)
    return _written(document, reports, weights_sha256=weights, dataset=run.document["dataset"])


def stated_limits(artifacts: Iterable[Artifact]) -> tuple[str, ...]:
    """What the artifacts demand of their sizes, each once."""
    return tuple(dict.fromkeys(limit for artifact in artifacts for limit in artifact.signature.limits))


def inputs_of(artifact: Path) -> Sequence[TensorSpec]:
    """What an artifact declares to take, whoever wrote it."""
    known = read_runner(artifact).signature
    return known.inputs if known else inspect_artifact(artifact).inputs


def gate_for(
    module: nn.Module,
    example: tuple[Tensor, ...],
    declared: Sequence[TensorSpec],
    dynamic: Axes | None = None,
    terms: Terms = Terms(),
    found: Sequence[Probe] = (),
    limits: Sequence[str] = (),
) -> Gate:
    """What an artifact of the user's own module is held to, whoever wrote it: the example, values like it at other
    sizes, and what was `found` at export. `dynamic` says which axes must be free; else those are that the artifact
    declared. `limits`: what the artifacts demand of their sizes."""
    reference, example = Reference(module, terms.budget), check_inputs(example, "the example")
    if dynamic is None:
        named = zip(input_names(reference.module, example), declared, strict=False)
        dynamic = {name: axes for name, spec in named if (axes := _symbols_of(spec))}
    specs = input_specs(reference.module, example, dynamic)
    limits = tuple(dict.fromkeys([*declared_limits(dynamic), *limits]))
    return _gate(reference, specs, [*drawn_probes(specs, example, limits, terms.seed), *found], terms, limits)


def _gate(
    reference: Reference,
    specs: tuple[TensorSpec, ...],
    candidates: Sequence[Probe],
    terms: Terms,
    limits: Sequence[str] = (),
) -> Gate:
    """The gate of the probes that eager takes, of the rows of one of them, and of its values with NaN and infinities
    among them."""
    probes, _ = usable(reference, candidates)
    if not all(reference.repeats(probe) for probe in probes[:3]):
        raise UsageError(
            f"{title_of(reference.module)}.forward draws random numbers: eager itself differs between two calls",
            RANDOM_REMEDY,
        )
    signature = signature_of(reference.module, specs, [probe for probe in probes if probe.family != FOUND])
    rows, _ = usable(reference, row_probes(probes, signature))
    non_finite, _ = usable(reference, non_finite_probes(specs, probes[0].inputs, limits, terms.seed))
    reference.release()
    return Gate(
        reference, (*probes, *rows), overrides=terms.overrides, signature=signature, seed=terms.seed,
        non_finite=tuple(non_finite),
    )  # fmt: skip


def _as_captured(
    module: nn.Module, call: Call | None, known: Signature | None
) -> tuple[nn.Module, CallForm | None, tuple[Tensor, ...]]:
    """The module as one that takes the tensors alone of a call like `call`, or else of the call that was captured; the
    form of that call, if it is known; and the tensors of `call`. UsageError where the two calls are not of one form."""
    form = known.call_form if known else None
    if known and known.call:
        module, call = as_captured(module, call, known.call)
    if call is None:
        return module_of_form(module, known.call) if known and known.call else module, form, ()
    flat = flat_call(module, call)
    if form:
        tensors_of_call(call, form, "the call")
    return flat.module, form or flat.form, flat.inputs


def _symbols_of(spec: TensorSpec) -> dict[int, str]:
    return {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}


def _sidecars(artifacts: Iterable[Path]) -> list[Artifact]:
    """Those that can be read; of one that cannot, the gate says why."""
    known = []
    for path in artifacts:
        if sidecar_of(path).exists():
            try:
                known.append(read_artifact(path))
            except DeploypipeError:
                continue
    return known


def _sample_of(sidecars: Sequence[Artifact]) -> tuple[Tensor, ...]:
    for artifact in sidecars:
        if artifact.samples:
            return tuple(map(to_tensor, artifact.samples.inputs))
    raise UsageError("there is nothing to compare on", "Give probes=[(x,), …], or an example of the inputs.")


def _found(sidecars: Sequence[Artifact]) -> list[Probe]:
    """The inputs that were found at export, each once. Eager takes them, or the module is another one by now."""
    distinct = dict.fromkeys(inputs for artifact in sidecars for inputs in artifact.found_inputs)
    decoded = (tuple(to_tensor(tensor.array) for tensor in inputs) for inputs in distinct)
    return [replace(found_probe(inputs), optional=True) for inputs in decoded]


def _serving(subjects: Subjects, like: Path | None) -> AbstractContextManager[dict[str, Served]]:
    return serving(subjects.archive, subjects.url, subjects.name, subjects.headers, subjects.device, like)


def _examine(gate: Gate, subjects: Subjects, served: Mapping[str, Served]) -> tuple[Report, ...]:
    """ServingError when a server does not answer."""
    files = (gate.examine(path, subjects.device) for path in subjects.artifacts)
    return (*files, *(examine_answering(gate, title, answering) for title, answering in served.items()))


def _written(path: Path, reports: Sequence[Report], **facts: Any) -> Verified:
    """The report at `path`, and a script for the first file that differs; scripts of before are removed."""
    verdict = "passed" if all(report.passed for report in reports) else "failed"
    artifacts = [report.to_json() for report in reports]
    write_json(path, {"schema": SCHEMA, "verdict": verdict, **facts, "artifacts": artifacts})
    first = None
    for report in reports:
        artifact = Path(report.artifact)
        if not artifact.is_file():  # a server
            continue
        script = script_for(artifact)
        evidence = report.evidence
        if first is None and evidence is not None:
            first = script
            write_reproduction(
                script, artifact, evidence.probe.inputs, evidence.expected, evidence.names, evidence.tolerances,
                report.culprit,
            )  # fmt: skip
        else:
            remove_own(script)
    return Verified(tuple(reports), path, first)
