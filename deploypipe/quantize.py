"""int8: a run's proven ONNX artifact with weights and activations rounded to 8 bits, for processors that are faster so.

Such an artifact does not return what eager returns, and says so: file, sidecar and archive name the precision, and the
gate holds it to the task instead (parity/standards.py). Rounding is onnxruntime's own static quantisation, which
measures the range of every activation on training images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deploypipe.contract.run import Run
from deploypipe.contract.seal import broken_link
from deploypipe.contract.sidecar import Artifact
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.data import dataset_of
from deploypipe.errors import ParityError, UsageError
from deploypipe.export import plan_run, write_proven
from deploypipe.formats.reading import read_artifact, read_runner
from deploypipe.formats.session import METADATA, SEAL, errors_only
from deploypipe.models import entry_of
from deploypipe.parity.standards import INT8 as PRECISION
from deploypipe.parity.standards import HeldToTask
from deploypipe.parity.verdict import Report

if TYPE_CHECKING:
    import onnx

    from deploypipe.capture import Capture

SOURCE, TARGET = "model.onnx", f"model.{PRECISION}.onnx"
CALIBRATION, BATCH = 1024, 64
"""Training images on which ranges are measured: with these `lean-cnn` keeps eager's class of every MNIST test image."""
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize(run: Run, data_dir: Path | None = None) -> tuple[Artifact, Report]:
    """Write `exports/model.int8.onnx` from the run's `model.onnx`, held to the accuracy of the eager model.

    Nothing is written unless the report says "passed". UsageError for a run that classifies no images or has no ONNX
    artifact; ParityError where that one is not the one that was proven.
    """
    dataset = dataset_of(run, data_dir)
    if dataset is None or entry_of(run.model).task != IMAGE_CLASSIFICATION:
        raise UsageError(f"{run.model} classifies no images: there is no accuracy to hold its {PRECISION} artifact to")
    source = run.exports / SOURCE
    facts = read_artifact(source)
    problem = broken_link(facts.to_json(), read_runner(source))
    if not problem and facts.provenance.get("weights_sha256") != run.document["weights_sha256"]:
        problem = "it was written from other weights than this run's"
    if problem:
        raise ParityError(f"{source}: {problem}", "Write it anew with `deploypipe export`.")
    prepared = plan_run(run, data_dir)
    images = dataset.train.inputs[:CALIBRATION]
    origin = {"rounded_from": facts.sha256, "calibrated_on": len(images)}
    prepared = replace(prepared, standard=HeldToTask(PRECISION), provenance={**prepared.provenance, **origin})
    return write_proven(prepared, "onnx", run.exports / TARGET, write=partial(_write, source, images))


def _write(
    source: Path,
    images: Tensor,
    capture: "Capture",
    path: Path,
    metadata: str,
    probes: Sequence[tuple[Tensor, ...]],
) -> str:
    """A `Format.write` that rounds `source`, an artifact of the same capture."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    simple = path.with_name("simple.onnx")
    (name,) = (spec.name for spec in capture.signature.inputs)
    with errors_only("root"):  # it advises to do what is done here
        # Folds batch normalisations into the products before them, and infers the shapes that rounding needs.
        quant_pre_process(str(source), str(simple), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(simple),
            str(path),
            _reader(name, images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_last_products(onnx.load(str(simple)).graph),
        )
    proto = onnx.load(str(path))
    kept = {entry.key: entry.value for entry in proto.metadata_props if entry.key not in (METADATA, SEAL)}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {**kept, METADATA: metadata})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, str(path))
    simple.unlink()
    return f"rounded to {PRECISION} by onnxruntime, ranges from {len(images)} training images"


def _reader(name: str, images: Tensor) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(torch.split(images, BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch.numpy()}

    return Reader()


def _last_products(graph: "onnx.GraphProto") -> list[str]:
    """The product nearest to each output stays float: rounded logits would give ties, and it is the smallest."""
    made = {name: node for node in graph.node for name in node.output}
    found, seen = [], set()
    ahead = [value.name for value in graph.output]
    while ahead:
        node = made.get(ahead.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type in PRODUCTS:
            found.append(node.name)
        else:
            ahead.extend(node.input)
    return found
