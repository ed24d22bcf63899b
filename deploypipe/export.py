"""Export: capture once, write each format, prove each one equal to eager, put it in place."""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.artifact import TENSORS, Artifact, read_runner, sidecar_of
from deploypipe.capture import Axes, Capture, capture
from deploypipe.errors import DeploypipeError, ExportError, UsageError, first_line
from deploypipe.files import scratch_folder, sha256_file
from deploypipe.formats import FORMATS
from deploypipe.parity import Probe, Report, compare, drawn_probes, run_probes
from deploypipe.runs import Run
from deploypipe.signature import Sample, flatten

SMALL_SAMPLE, LARGE_SAMPLE = 8 * 1024, 2 * 1024 * 1024
"""Bytes of inputs that a sidecar carries gladly, and at most: as JSON numbers they must still fit into one request."""


def export(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    format: str,
    path: str | Path,
    dynamic: Axes | None = None,
    probes: Iterable[Probe | tuple[Tensor, ...]] | None = None,
    output_names: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write `module` to `path` as one artifact, proven equal to eager on every probe, with its sidecar beside it.

    `example_inputs`: a tuple of tensors to capture with. `dynamic`: argument name → axis → symbol name, the axes whose
    size may differ from the example's. `probes`: input tuples on which the artifact must return what eager returns;
    without them the example and values like it, at several batch sizes.

    The module stays as it was (mode, weights, class). Nothing is left at `path` unless it was proven: ExportError when
    the model cannot be captured or the format cannot carry it, ParityError when the artifact differs from eager.
    """
    captured = capture(module, example_inputs, dynamic, tuple(output_names) if output_names else None)
    artifact, report = write_proven(captured, format, Path(path), probes, provenance)
    report.raise_if_failed()
    return artifact


def write_proven(
    captured: Capture,
    format: str,
    path: Path,
    probes: Iterable[Probe | tuple[Tensor, ...]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    task: str = TENSORS,
) -> tuple[Artifact, Report]:
    """One format of one capture. The artifact is put at `path` only when the report says "passed".

    One of the probes goes into the sidecar, as the sample that servers check themselves with.
    """
    if format not in FORMATS:
        raise UsageError(f"no format {format!r}", f"There are: {', '.join(FORMATS)}.")
    entry = FORMATS[format]
    if path.suffix != entry.suffix:
        raise UsageError(f"a {format} artifact ends in {entry.suffix}, not in {path.name!r}")
    if probes is None:
        probes = drawn_probes(captured.signature, captured.example_inputs)
    proving = [probe if isinstance(probe, Probe) else Probe("given", probe) for probe in probes]
    provenance = dict(provenance or {})
    metadata = json.dumps({"signature": captured.signature.to_json(), "provenance": provenance})
    with scratch_folder(path) as folder:
        written = folder / path.name
        try:
            how = entry.write(captured, written, metadata)
        except DeploypipeError:
            raise
        except Exception as cause:
            raise ExportError(
                f"{type(captured.module).__name__} cannot be written as {format}: {first_line(cause)}",
                "Another format may carry it: `deploypipe formats` lists them.",
            ) from cause
        report = compare(captured.module, read_runner(written), str(path), proving)
        artifact = Artifact(
            path=path,
            format=format,
            signature=captured.signature,
            sha256=sha256_file(written),
            provenance={**provenance, **({"how": how} if how else {})},
            parity=report.summary(),
            samples=_sample(captured.module, proving),
            task=task,
        )
        if report.passed:
            # A crash between the two renames leaves an artifact without a sidecar, which nothing serves.
            sidecar_of(path).unlink(missing_ok=True)
            written.replace(path)
            artifact.write_sidecar()
    return artifact, report


def _sample(module: nn.Module, probes: Sequence[Probe]) -> Sample | None:
    """The largest probe of the first family that is still small; the smallest of all where none is."""

    def bytes_of(probe: Probe) -> int:
        return sum(tensor.nbytes for tensor in probe.inputs)

    small = [probe for probe in probes if probe.family == probes[0].family and bytes_of(probe) <= SMALL_SAMPLE]
    chosen = max(small, key=bytes_of) if small else min(probes, key=bytes_of, default=None)
    if chosen is None or bytes_of(chosen) > LARGE_SAMPLE:
        return None
    with torch.no_grad():
        return Sample(chosen.inputs, tuple(flatten(module(*copy.deepcopy(chosen.inputs)))[0]))


def export_run(run: Run, formats: Sequence[str], data_dir: Path | None = None) -> list[tuple[Artifact, Report]]:
    """The run's model in each of `formats`, below the run's `exports/`; captured once.

    Every format is tried; artifacts that differ from eager are not put in place, and their reports say so.
    """
    for format in formats:
        if format not in FORMATS:
            raise UsageError(f"no format {format!r}", f"There are: {', '.join(FORMATS)}.")
    module = run.load_module()
    entry = run.entry
    captured = capture(module, entry.example(), entry.dynamic, entry.outputs)
    probes = run_probes(run, captured.signature, data_dir)
    return [
        write_proven(
            captured, format, run.exports / f"model{FORMATS[format].suffix}", probes, run.provenance(), entry.task
        )
        for format in formats
    ]
