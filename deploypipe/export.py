"""Export: capture, choose probes, cover branch outcomes, write, prove, seal, put in place."""

import copy
import hashlib
import json
import mmap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.capture import Capture, capture, cover_outcomes, within_bound
from deploypipe.contract.call import Call
from deploypipe.contract.environment import git_commit, versions
from deploypipe.contract.run import Run
from deploypipe.contract.sample import EncodedTensor, Sample
from deploypipe.contract.seal import digest_of
from deploypipe.contract.sidecar import Artifact, ControlFlow, is_sidecar, sidecar_of
from deploypipe.contract.signature import Axes
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION, TENSORS
from deploypipe.data import Split, dataset_of
from deploypipe.eager import flat_tensors, title_of
from deploypipe.errors import DeploypipeError, ExportError, ParityError, UsageError, first_line
from deploypipe.explicit import RANDOM_REMEDY
from deploypipe.files import scratch_folder, sha256_file
from deploypipe.flat_module import as_call
from deploypipe.formats import format_named
from deploypipe.formats.format import Format, Write
from deploypipe.formats.reading import read_runner
from deploypipe.formats.session import METADATA
from deploypipe.formats.torch_session import to_array
from deploypipe.models import entry_of
from deploypipe.models.trained import load_trained
from deploypipe.original import untouched
from deploypipe.parity.budget import BY_MODEL, Budget
from deploypipe.parity.gate import Gate, usable
from deploypipe.parity.nursery import nursery_for
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
from deploypipe.parity.reference import Reference, exact
from deploypipe.parity.standards import EQUAL_TO_EAGER, Standard
from deploypipe.parity.verdict import Report
from deploypipe.torch_compat.quantized import hidden_weights

SMALL_SAMPLE, LARGE_SAMPLE = 8 * 1024, 2 * 1024 * 1024
"""Bytes of inputs that a sidecar carries gladly, and at most: as JSON numbers they must still fit into one request."""
FOUND_INPUTS = 256 * 1024
"""Bytes of found inputs that a sidecar keeps."""


@dataclass(frozen=True)
class Plan:
    """A captured model, and all that each artifact of it must prove and say."""

    captured: Capture
    gate: Gate
    control_flow: tuple[ControlFlow, ...]
    provenance: Mapping[str, Any]
    task: str
    untried: tuple[str, ...]
    """A line for each drawn probe that eager itself refuses."""
    standard: Standard = EQUAL_TO_EAGER
    """What the artifact is held to; of lower precision, the artifact's file names that."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the author should know before relying on an artifact of this plan."""
        title = title_of(self.captured.module)
        mode = (f"{title} is in train mode: it is exported in eval mode",) if self.captured.was_training else ()
        limits = tuple(
            f"{title}: the artifact holds for `{limit}` only; other sizes are refused"
            for limit in self.captured.static.limits
        )
        return (*mode, *limits, *self.captured.static.remarks, *self.untried, *self.unproven)

    @property
    def unproven(self) -> tuple[str, ...]:
        """A line for each place with a branch outcome that no probe takes."""
        return tuple(
            f"{site.where}: no probe takes the outcome {', '.join(site.unproven)} of this {site.kind}"
            for site in self.control_flow
            if site.unproven
        )

    def require_coverage(self) -> None:
        """ParityError unless the probes take every branch outcome."""
        if self.unproven:
            raise ParityError("; ".join(self.unproven), "Give probes that do, or export without requiring coverage.")


def plan(
    captured: Capture,
    probes: Iterable[GivenProbe] | None = None,
    provenance: Mapping[str, Any] | None = None,
    task: str = TENSORS,
    *,
    test: Split | None = None,
    seed: int = 0,
    budget: Budget = BY_MODEL,
) -> Plan:
    """Decide on what the artifacts of `captured` are compared: `probes`, else the example and values like it; the rows
    of a batch, each alone; more inputs where those leave a branch outcome of the model untaken and search finds any;
    and every image of `test`. `seed`: of what is drawn."""
    reference = Reference(captured.module, budget)
    like = captured.signature.inputs, captured.example_inputs, captured.signature.limits
    if probes is None:
        probes = drawn_probes(*like, seed=seed)
    given, untried = usable(reference, probes, captured.form)
    before = len(given)
    given = [probe for probe in given if not probe.optional or within_bound(captured, probe.inputs)]
    if len(given) < before:
        untried.append(
            f"not proven: on {before - len(given)} drawn inputs eager runs a loop more often than the bound allows"
        )
    given += usable(reference, row_probes(given, captured.signature))[0]
    if not all(reference.repeats(probe) for probe in given[:3]):
        raise ExportError(
            f"{title_of(captured.module)}.forward draws random numbers: eager itself differs between two calls",
            RANDOM_REMEDY,
        )
    found, control_flow = cover_outcomes(captured, [probe.inputs for probe in given])
    drawn, _ = usable(reference, non_finite_probes(*like, seed=seed))
    non_finite = tuple(probe for probe in drawn if within_bound(captured, probe.inputs))
    reference.release()
    gate = Gate(reference, (*given, *map(found_probe, found)), test, seed=seed, non_finite=non_finite)
    if provenance is None:
        provenance = own_provenance(captured.module)
    return Plan(captured, gate, control_flow, dict(provenance), task, tuple(untried))


def plan_run(run: Run, data_dir: Path | None = None, *, seed: int = 0, budget: Budget = BY_MODEL) -> Plan:
    """What the artifacts of a run's model must prove: an image classifier on test images and random pixels, any other
    on its example, values like it, and inputs that take its other branch outcomes."""
    entry = entry_of(run.model)
    captured = capture(load_trained(run), entry.example(), entry.dynamic, entry.outputs)
    dataset = dataset_of(run, data_dir)
    test = dataset.test if dataset and entry.task == IMAGE_CLASSIFICATION else None
    probes = image_probes(test.inputs, seed=seed) if test else None
    return plan(captured, probes, run.provenance(), entry.task, test=test, seed=seed, budget=budget)


def own_provenance(module: nn.Module) -> dict[str, Any]:
    """Where an artifact of the user's own module comes from: its class, its weights' digest, versions, git commit."""
    digest = hashlib.sha256()
    weights = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    for name, tensor in {**weights, **dict(hidden_weights(module))}.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "model": title_of(module),
        "versions": versions(),
        "git_commit": git_commit(),
        "weights_sha256": digest.hexdigest(),
    }


def export(
    module: nn.Module,
    args: Tensor | tuple[Any, ...] | Mapping[str, Any] | Call,
    kwargs: Mapping[str, Any] | None = None,
    *,
    format: str,
    path: str | Path,
    dynamic: Axes | None = None,
    probes: Iterable[GivenProbe] | None = None,
    output_names: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    require_coverage: bool = False,
    random: str | None = None,
    state: str | None = None,
    bound: int | None = None,
    seed: int = 0,
    budget: Budget = BY_MODEL,
) -> Artifact:
    """Write `module` to `path` as one artifact, proven equal to eager on every probe, with its sidecar beside it.

    `args`, `kwargs`: the call to capture, `module(*args, **kwargs)`: tensors, None, numbers, strings, and lists,
    tuples, dicts, dataclasses, NamedTuples and registered pytree nodes of them. Tensors are the inputs, named by their
    place (`x`, `images[0]`, `batch.input_ids`); everything else is a constant of the artifact, and a call with another
    value is refused. `dynamic`: input name → axis → symbol name, the axes whose size may differ from the example's.
    `probes`: calls on which the artifact must return what eager returns, each a tuple of arguments, a dict of keyword
    arguments or a `Call`; without them the example and values like it, at several batch sizes.

    Python control flow that depends on tensor values or dynamic sizes is carried into the graph; a branch outcome that
    no probe takes is warned of (UserWarning), and with `require_coverage` refused. A module in train mode is exported
    in eval mode, with a warning.

    `random="input"`: the random numbers that `forward` draws are computed from an argument more, `noise`, a list with
    a tensor for each draw: standard normal where the draw is normal, else uniform in [0, 1). `state="explicit"`: the
    buffers and attributes that `forward` changes are an argument more, `state`, a dict by their names, and it returns
    its outputs and the new state. `bound`: how often a loop runs at most that makes tensors or lists longer, where its
    code does not say it; one that runs more often ends in an error of the artifact's.

    `seed`: of the values that are drawn. `budget`: what the comparisons may spend; whatever has no room is warned of.

    The module stays as it was (mode, weights, class). Nothing is left at `path` unless it was proven: ExportError when
    the model cannot be captured or the format cannot carry it, ParityError when the artifact differs from eager.
    """
    example = as_call(args, "the example")
    if kwargs:
        example = Call(*example.args, **{**example.kwargs, **kwargs})
    with untouched(module):  # which a hook of the copy may still reach
        captured = capture(module, example, dynamic, output_names, random=random, state=state, bound=bound)
        prepared = plan(captured, probes, provenance, seed=seed, budget=budget)
        if require_coverage:
            prepared.require_coverage()
        for line in prepared.remarks:
            warnings.warn(line, stacklevel=2)
        artifact, report = write_proven(prepared, format, Path(path))
        for line in report.remarks:
            warnings.warn(line, stacklevel=2)
    report.raise_if_failed()
    return artifact


def write_proven(prepared: Plan, format: str, path: Path, *, write: Write | None = None) -> tuple[Artifact, Report]:
    """One artifact of a plan, written by `write` if given, else as its format does. It is put at `path`, with its
    sidecar, only when the report says "passed". UsageError where something lies there that deploypipe cannot show to
    be its own."""
    entry = format_named(format)
    _check_place(entry, path)
    nursery_for(path)  # its imports take as long as all that comes before it is asked
    with scratch_folder(path) as folder:
        written = folder / path.name
        how = _write(prepared, entry, written, write or entry.write)
        report = _prove(prepared, entry, written, path)
        if report.passed:
            _seal(entry, written, report, prepared.gate.probes[0])
        artifact = _described(prepared, entry, written, path, report, how)
        if report.passed:
            _put_in_place(written, artifact)
    return artifact, report


def _check_place(entry: Format, path: Path) -> None:
    if path.suffix != entry.suffix:
        raise UsageError(f"a {entry.name} artifact ends in {entry.suffix}, not in {path.name!r}")
    sidecar = sidecar_of(path)
    for foreign in (
        path if path.exists() and not (is_sidecar(sidecar) or _describes_itself(path)) else None,
        sidecar if sidecar.exists() and not is_sidecar(sidecar) else None,
    ):
        if foreign is not None:
            raise UsageError(f"{foreign} was not written by deploypipe: it is left as it is",
                             "Choose another place, or move it away.")  # fmt: skip


def _describes_itself(path: Path) -> bool:
    """Whether the file holds the description that each artifact carries. To load it would be to trust it."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(METADATA.encode()) >= 0


def _write(prepared: Plan, entry: Format, path: Path, write: Write) -> str:
    """What is worth saying about how it was written."""
    standard = prepared.standard
    facts = {"signature": prepared.captured.signature.to_json(), "provenance": dict(prepared.provenance)}
    metadata = json.dumps({**facts, "precision": standard.precision} if standard.precision else facts)
    try:
        return write(prepared.captured, path, metadata, [probe.inputs for probe in prepared.gate.probes])
    except DeploypipeError:
        raise
    except Exception as cause:
        raise _cannot_be(prepared, "written", entry, first_line(_root(cause))) from cause


def _prove(prepared: Plan, entry: Format, written: Path, path: Path) -> Report:
    try:
        return prepared.gate.examine(written, title=str(path))
    except ParityError as cause:
        reason = first_line(_root(cause)).replace(str(written), path.name)
        raise _cannot_be(prepared, "run", entry, reason) from cause


def _cannot_be(prepared: Plan, what: str, entry: Format, reason: str) -> ExportError:
    title = title_of(prepared.captured.module)
    return ExportError(f"{title} cannot be {what} as {entry.name}: {reason}",
                       "Another format may carry it: `deploypipe formats` lists them.")  # fmt: skip


def _seal(entry: Format, path: Path, report: Report, probe: Probe) -> None:
    """Write into the proven file that it is proven: its own answer must not change by that."""
    before = read_runner(path).run(*probe.inputs)
    seal = {"verdict": report.verdict, "sha256": digest_of(report.summary())}
    entry.seal(path, json.dumps(seal))
    sealed = read_runner(path)
    pairs = zip(before, sealed.run(*probe.inputs), strict=True)
    same = all(torch.allclose(exact(a), exact(b), rtol=0, atol=0, equal_nan=True) for a, b in pairs)
    if sealed.seal != seal or not same:
        raise ExportError(f"{path.name} is no longer what was proven once its verdict is in it", "This is a bug.")


def _described(prepared: Plan, entry: Format, written: Path, path: Path, report: Report, how: str) -> Artifact:
    """The facts of the sidecar. A sample is what the artifact must answer later; without a proof there is none."""
    probes, standard = prepared.gate.probes, prepared.standard
    answers = standard.sample_from(prepared.captured.module, partial(read_runner, written)) if report.passed else None
    return Artifact(
        path=path,
        format=entry.name,
        signature=prepared.captured.signature,
        sha256=sha256_file(written),
        provenance={**prepared.provenance, **({"how": how} if how else {})},
        parity=report.summary(),
        samples=_sample(answers, probes) if answers else None,
        control_flow=prepared.control_flow,
        task=prepared.task,
        precision=standard.precision,
        found_inputs=_found_inputs(probes),
    )


def _put_in_place(written: Path, artifact: Artifact) -> None:
    # A crash between the two renames leaves an artifact without a sidecar, which nothing serves.
    artifact.sidecar.unlink(missing_ok=True)
    written.replace(artifact.path)
    artifact.write_sidecar()


@dataclass(frozen=True)
class Written:
    """What came of one format: an artifact and its report, or why there is none."""

    format: str
    path: Path
    artifact: Artifact | None = None
    report: Report | None = None
    error: DeploypipeError | None = None

    def proven(self) -> tuple[Artifact, Report]:
        """The artifact and its report. Raises the error, or ParityError when the artifact differs from eager."""
        if self.error is not None:
            raise self.error
        assert self.artifact is not None and self.report is not None
        self.report.raise_if_failed()
        return self.artifact, self.report


def write_each(prepared: Plan, paths: Mapping[str, Path]) -> list[Written]:
    """A plan's artifact in each format of `paths`. Every format is tried, whatever came of the others."""
    rows = []
    for format, path in paths.items():
        try:
            artifact, report = write_proven(prepared, format, path)
        except (ExportError, ParityError) as error:
            rows.append(Written(format, path, error=error))
        else:
            rows.append(Written(format, path, artifact, report))
    return rows


def export_run(run: Run, formats: Sequence[str], prepared: Plan) -> list[Written]:
    """The run's model in each of `formats`, below the run's `exports/`."""
    return write_each(prepared, {format: run.exports / f"model{format_named(format).suffix}" for format in formats})


def _root(cause: BaseException) -> BaseException:
    """Exporters wrap what went wrong several times; the innermost error says it."""
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return cause


def _sample(answers: Callable[..., Any], probes: Sequence[Probe]) -> Sample | None:
    """The largest probe of the first family that is still small; the smallest of all where none is."""
    small = [probe for probe in probes if probe.family == probes[0].family and _bytes(probe) <= SMALL_SAMPLE]
    chosen = max(small, key=_bytes) if small else min(probes, key=_bytes, default=None)
    if chosen is None or _bytes(chosen) > LARGE_SAMPLE:
        return None
    with torch.no_grad():
        outputs = flat_tensors(answers(*copy.deepcopy(chosen.inputs)))[0]
        return Sample.of(map(to_array, chosen.inputs), map(to_array, outputs))


def _found_inputs(probes: Sequence[Probe]) -> tuple[tuple[EncodedTensor, ...], ...]:
    """The inputs that were found for a branch outcome, as many as are small."""
    kept, total = [], 0
    for probe in sorted((probe for probe in probes if probe.family == FOUND), key=_bytes):
        total += _bytes(probe)
        if total <= FOUND_INPUTS:
            kept.append(tuple(EncodedTensor.of(to_array(tensor)) for tensor in probe.inputs))
    return tuple(kept)


def _bytes(probe: Probe) -> int:
    return sum(tensor.nbytes for tensor in probe.inputs)
