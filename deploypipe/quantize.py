"""Quantize: a run's proven ONNX artifact with weights and activations rounded to 8 bits, which many
processors run faster.

Such an artifact does not return what eager returns, and says so: file, sidecar and archive name the precision, and the
gate holds it to the task instead.
"""

from dataclasses import replace
from pathlib import Path

from deploypipe.contract.run import Run
from deploypipe.contract.sidecar import Artifact
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.data import dataset_of
from deploypipe.errors import ParityError, UsageError
from deploypipe.export import plan_run, write_proven
from deploypipe.formats.reading import read_artifact, read_runner
from deploypipe.models import entry_of
from deploypipe.parity.provenance import check_provenance
from deploypipe.parity.standards import INT8, HeldToTask
from deploypipe.parity.verdict import Report
from deploypipe.precision.int8 import rounding

SOURCE, TARGET = "model.onnx", f"model.{INT8}.onnx"
CALIBRATION = 1024
"""Training images on which ranges are measured: with these `lean-cnn` keeps eager's class of every MNIST test image."""


def quantize(run: Run, data_dir: Path | None = None) -> tuple[Artifact, Report]:
    """Write `exports/model.int8.onnx` from the run's `model.onnx`, held to the accuracy of the eager model.

    Nothing is written unless the report says "passed". UsageError for a run that classifies no images or has no ONNX
    artifact; ParityError where that one is not the one that was proven.
    """
    dataset = dataset_of(run, data_dir)
    if dataset is None or entry_of(run.model).task != IMAGE_CLASSIFICATION:
        raise UsageError(f"{run.model} classifies no images: there is no accuracy to hold its {INT8} artifact to")
    source = run.exports / SOURCE
    facts = read_artifact(source)
    provenance = check_provenance(source, read_runner(source), run.document["weights_sha256"])
    if not provenance.passed:
        raise ParityError(f"{source}: {provenance.detail}", "Write it anew with `deploypipe export`.")
    prepared = plan_run(run, data_dir)
    images = dataset.train.inputs[:CALIBRATION]
    origin = {"rounded_from": facts.sha256, "calibrated_on": len(images)}
    prepared = replace(prepared, standard=HeldToTask(INT8), provenance={**prepared.provenance, **origin})
    return write_proven(prepared, "onnx", run.exports / TARGET, write=rounding(source, images))
