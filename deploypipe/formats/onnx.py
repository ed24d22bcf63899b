"""ONNX: one file, symbolic axes, run by ONNX Runtime."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..signature import TensorSpec
from .base import METADATA, SEAL, DeviceUnavailable, Format, Runner, errors_only

if TYPE_CHECKING:
    import onnx

    from ..anatomy import Anatomy
    from ..capture import Capture

OPSET = 20  # the newest that torch's dynamo exporter writes without converting


def write(capture: "Capture", path: Path, metadata: str, probes: Sequence[tuple[Tensor, ...]]) -> str:
    import onnx

    from deploypipe.dynamic_to_static.onnx import to_onnx

    with errors_only("onnx_ir"), errors_only("onnxscript"):  # they tell what they did not optimise
        program = to_onnx(
            capture.static,
            opset_version=OPSET,
            input_names=[spec.name for spec in capture.signature.inputs],
            output_names=[spec.name for spec in capture.signature.outputs],
        )
    proto: onnx.ModelProto = program.model_proto
    _name_axes(proto.graph, capture.symbols)
    onnx.helper.set_model_props(proto, {METADATA: metadata})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, str(path))
    return ""


def _name_axes(graph: "onnx.GraphProto", names: Mapping[str, str]) -> None:
    """Call symbolic axes by the author's names ("batch") instead of torch's ("s77")."""
    from deploypipe.capture import rename_symbols

    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.dim_param = rename_symbols(axis.dim_param, names)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _name_axes(attribute.g, names)


class OnnxRunner(Runner):
    runtime = "onnxruntime"

    def __init__(self, path: Path, device: str, threads: int | None, optimisation: str = "ORT_ENABLE_ALL") -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, optimisation)
        options.log_severity_level = 4  # what it fails of is in its exceptions; the rest is of no use to the user
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        # Asking for a provider that is not there only prints an error and falls back, so ask for what is there.
        kind, _, index = device.partition(":")
        wanted: list[Any] = ["CPUExecutionProvider"]
        if kind == "cuda":
            if not torch.cuda.is_available() or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise DeviceUnavailable(f"device {device!r} asked for, but ONNX Runtime has no usable CUDA here")
            # Without this, float32 convolutions and products run in TF32: 10 bits of mantissa.
            wanted.insert(0, ("CUDAExecutionProvider", {"device_id": int(index or 0), "use_tf32": 0}))
        elif kind != "cpu":
            raise DeviceUnavailable(f"ONNX Runtime runs on cpu or cuda here, not on {device!r}")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        self.provider: str = self.session.get_providers()[0]
        self._names = [node.name for node in self.session.get_inputs()]
        if kind == "cuda" and self.provider != "CUDAExecutionProvider":
            raise DeviceUnavailable(f"ONNX Runtime fell back to {self.provider} though {device!r} was asked for")
        properties = self.session.get_modelmeta().custom_metadata_map
        super().__init__(properties.get(METADATA, ""), properties.get(SEAL, ""), device)
        if self.signature is not None:
            _check_names("inputs", self.signature.inputs, self.session.get_inputs())
            _check_names("outputs", self.signature.outputs, self.session.get_outputs())

    def run(self, *inputs: Tensor) -> list[Tensor]:
        feed = {name: tensor.detach().cpu().numpy() for name, tensor in zip(self._names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in self.session.run(None, feed)]


def _check_names(kind: str, specs: Sequence[TensorSpec], nodes: Sequence[Any]) -> None:
    """Tensors go in and come out by position here, but by name for whoever runs the file with ONNX Runtime alone."""
    names, wanted = [node.name for node in nodes], [spec.name for spec in specs]
    if names != wanted:
        raise ValueError(f"its {kind} are {', '.join(names)}, but its signature says {', '.join(wanted)}")


def seal(path: Path, text: str) -> None:
    import onnx

    proto = onnx.load_model(str(path))
    proto.metadata_props.add(key=SEAL, value=text)
    onnx.save_model(proto, str(path))


def variants(path: Path, device: str) -> dict[str, Callable[[], Runner]]:
    """Each level of graph optimisation but the usual one: levels have differed, and a server may choose its own."""
    levels = {"off": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}
    return {f"optimisation {name}": partial(OnnxRunner, path, device, None, level) for name, level in levels.items()}


def inspect(path: Path) -> "Anatomy":
    from deploypipe.anatomy.onnx import OnnxAnatomy

    return OnnxAnatomy(path)


FORMAT = Format(
    name="onnx",
    suffix=".onnx",
    carries="any captured program; runs wherever ONNX Runtime does",
    write=write,
    read=OnnxRunner,
    seal=seal,
    variants=variants,
    inspect=inspect,
)
