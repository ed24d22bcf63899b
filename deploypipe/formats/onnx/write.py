"""An ONNX file from a captured program."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from torch import Tensor

from deploypipe.capture import Capture
from deploypipe.formats.onnx.bfloat16 import computes_in_bfloat16
from deploypipe.formats.onnx.exporter import to_onnx
from deploypipe.formats.session import METADATA, SEAL, errors_only
from deploypipe.torch_compat.symbols import rename_symbols

CASTS_SAID = "bfloat16 operators compute in float32, each between casts"
OPSET = 20  # the newest that torch's dynamo exporter writes without converting


def write(capture: Capture, path: Path, metadata: str, probes: Sequence[tuple[Tensor, ...]]) -> str:
    with errors_only("onnx_ir"), errors_only("onnxscript"):  # they tell what they did not optimise
        program = to_onnx(
            capture.static,
            opset_version=OPSET,
            input_names=[spec.name for spec in capture.signature.inputs],
            output_names=[spec.name for spec in capture.signature.outputs],
        )
    proto: onnx.ModelProto = program.model_proto
    _name_axes(proto.graph, capture.symbols)
    save_described(proto, path, metadata)
    return CASTS_SAID if computes_in_bfloat16(capture.program) else ""


def save_described(proto: onnx.ModelProto, path: Path, metadata: str) -> None:
    """A checked file of `proto` with this description of itself, and no seal."""
    kept = {entry.key: entry.value for entry in proto.metadata_props if entry.key not in (METADATA, SEAL)}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {**kept, METADATA: metadata})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, str(path))


def seal(path: Path, text: str) -> None:
    # A message's bytes may be followed by those of another one, whose repeated fields then join its own.
    sealed = onnx.ModelProto()
    sealed.metadata_props.add(key=SEAL, value=text)
    with path.open("ab") as file:
        file.write(sealed.SerializeToString())


def _name_axes(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Call symbolic axes by the author's names ("batch") instead of torch's ("s77")."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.dim_param = rename_symbols(axis.dim_param, names)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _name_axes(attribute.g, names)
