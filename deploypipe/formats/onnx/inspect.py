"""Inside an ONNX file."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import torch
from onnx import numpy_helper
from torch import Tensor

from deploypipe.contract.signature import TensorSpec
from deploypipe.formats.inspection import Inspection, Names, Node, author_line
from deploypipe.formats.torch_session import to_tensor

SCOPES, TRACE = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.stack_trace"
"""What torch's exporter says of a node: the path of submodules down to it, and where its author called it."""
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


class OnnxInspection(Inspection):
    def __init__(self, path: Path) -> None:
        model = onnx.load(str(path), load_external_data=False)
        self.external = tuple(dict.fromkeys(_external_files(model.graph)))
        onnx.load_external_data_for_model(model, str(path.parent))
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        self._model = model
        self.inputs = tuple(map(_spec, self._fed(model.graph)))
        self.outputs = tuple(map(_spec, model.graph.output))
        self.returned = tuple(spec.name for spec in self.outputs)
        self.devices = frozenset()  # nothing in ONNX names one
        self.constants: dict[str, Tensor] = {}
        self._names = Names()
        self._opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
        bodies: list[Node] = []
        self.nodes = tuple(self._nodes(model.graph, {}, bodies))
        self.bodies = tuple(bodies)

    @staticmethod
    def _fed(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
        """Old files declare their initializers as inputs, too."""
        held = {initializer.name for initializer in graph.initializer}
        return [value for value in graph.input if value.name not in held]

    def _nodes(self, graph: onnx.GraphProto, outer: Mapping[str, Tensor], bodies: list[Node]) -> list[Node]:
        """The operators of a graph in their order; its constants, and the nodes of graphs inside it, are noted.
        `outer`: the constants that the graph sees around it."""
        seen = dict(outer)

        def note(name: str, tensor: Tensor) -> None:
            seen[name] = tensor
            key = name if name not in self.constants else f"{graph.name}/{name}"  # branches may use one name for two
            self.constants[key] = tensor

        for initializer in graph.initializer:
            note(initializer.name, _as_tensor(initializer))
        for sparse in graph.sparse_initializer:
            note(sparse.values.name, _dense(sparse))
        nodes = []
        for proto in graph.node:
            if proto.op_type == "Constant" and (value := _constant(proto)) is not None:
                note(proto.output[0], value)
                continue
            if proto.op_type == "Identity" and proto.input[0] in seen:  # a weight that is tied to another
                note(proto.output[0], seen[proto.input[0]])
                continue
            for attribute in proto.attribute:
                for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                    bodies.extend(self._nodes(body, seen, bodies))
            properties = {entry.key: entry.value for entry in proto.metadata_props}
            nodes.append(
                Node(
                    name=self._names.fresh(proto.name or proto.op_type),
                    operator=proto.op_type,
                    inputs=(*proto.input, *_captured(proto)),
                    outputs=tuple(proto.output),
                    module=_module(properties.get(SCOPES, "")),
                    source=author_line(properties.get(TRACE, "")),
                    training=self._trains(proto, seen),
                )
            )
        return nodes

    def _trains(self, proto: onnx.NodeProto, seen: Mapping[str, Tensor]) -> bool:
        attributes = {attribute.name: attribute for attribute in proto.attribute}
        if proto.op_type == "Dropout":
            if self._opset < 7:
                return not ("is_test" in attributes and attributes["is_test"].i)
            flag = seen.get(proto.input[2]) if len(proto.input) > 2 else None
            return flag is not None and bool(flag)
        if proto.op_type == "BatchNormalization":
            # With statistics that the graph computes it is what eager does in eval mode without running ones.
            trains = bool(attributes["training_mode"].i) if "training_mode" in attributes else False
            if self._opset < 14:
                trains = len([name for name in proto.output if name]) > 1
            return trains and proto.input[3] in seen
        return proto.op_type in RANDOM

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        known = {value.name for value in graph.output}
        wanted = dict.fromkeys(name for node in graph.node for name in node.output if name)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def values(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        given = {spec.name: tensor for spec, tensor in zip(self.inputs, inputs, strict=True)}
        names = [value.name for value in self._session.get_outputs()]
        results = self._session.run(None, {name: tensor.detach().cpu().numpy() for name, tensor in given.items()})
        found = {name: tensor.detach().cpu().clone() for name, tensor in given.items()}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, np.ndarray) and name not in self.constants:
                found[name] = torch.from_numpy(result)
        return found


def _as_tensor(proto: onnx.TensorProto) -> Tensor:
    """With a copy of the bytes. Strings have no tensor in torch: TypeError."""
    return to_tensor(numpy_helper.to_array(proto).copy())


def _constant(proto: onnx.NodeProto) -> Tensor | None:
    attribute = proto.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return None if value.data_type == onnx.TensorProto.STRING else _as_tensor(value)
    if attribute.name == "sparse_value":
        return _dense(value)
    if attribute.name in ("value_float", "value_floats"):
        return torch.tensor(value, dtype=torch.float32)
    if attribute.name in ("value_int", "value_ints"):
        return torch.tensor(value, dtype=torch.int64)
    return None


def _dense(sparse: onnx.SparseTensorProto) -> Tensor:
    values, indices = _as_tensor(sparse.values), _as_tensor(sparse.indices)
    dense = torch.zeros(*sparse.dims, dtype=values.dtype)
    if indices.dim() == 1:
        dense.view(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def _captured(proto: onnx.NodeProto) -> list[str]:
    """What the graphs inside a branch or a loop read from around it."""
    found: dict[str, None] = {}
    for attribute in proto.attribute:
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            own = {value.name for value in (*body.input, *body.initializer)}
            for node in body.node:
                found |= dict.fromkeys(name for name in (*node.input, *_captured(node)) if name and name not in own)
                own.update(node.output)
            found |= dict.fromkeys(value.name for value in body.output if value.name not in own)
    return list(found)


def _module(scopes: str) -> str:
    """ "['', 'network', 'network.0', 'conv2d']" → "network.0": the last is the node itself."""
    try:
        path = ast.literal_eval(scopes)
    except (SyntaxError, ValueError):
        return ""
    return str(path[-2]) if isinstance(path, list) and len(path) > 1 else ""


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """An axis without a name is "?", and "..." are axes whose number is unknown."""
    declared = value.type.tensor_type
    shape: tuple[int | str, ...] = ("...",)
    if declared.HasField("shape"):
        shape = tuple(
            axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?" for axis in declared.shape.dim
        )
    if declared.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return TensorSpec(value.name, onnx.TensorProto.DataType.Name(declared.elem_type).lower(), shape)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type).name, shape)


def _external_files(graph: onnx.GraphProto) -> Iterator[str]:
    for tensor in onnx.external_data_helper._get_all_tensors(onnx.ModelProto(graph=graph)):
        if onnx.external_data_helper.uses_external_data(tensor):
            yield next(entry.value for entry in tensor.external_data if entry.key == "location")


def inspect(path: Path) -> Inspection:
    return OnnxInspection(path)
