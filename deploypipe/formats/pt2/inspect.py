"""Inside a saved `torch.export` program."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind

from deploypipe.contract.signature import TensorSpec, dtype_name
from deploypipe.formats.aten import trains
from deploypipe.formats.inspection import Inspection, Names, Node, author_line
from deploypipe.formats.pt2.read import SERIALIZER
from deploypipe.formats.session import errors_only
from deploypipe.formats.torch_session import inference
from deploypipe.torch_compat.dispatch import OpOverload, pytree, schema_of

HELD = {InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR}


class Pt2Inspection(Inspection):
    def __init__(self, path: Path) -> None:
        with errors_only(SERIALIZER):
            self._program = torch.export.load(path)
        signature = self._program.graph_signature
        values = {node.name: node.meta.get("val") for node in self._program.graph.nodes}
        self.inputs = tuple(_spec(str(name), values.get(str(name), name)) for name in signature.user_inputs)
        self.outputs = tuple(_spec(str(name), values.get(str(name), name)) for name in signature.user_outputs)
        self.returned = tuple(spec.name for spec in self.outputs)
        self.external = ()
        graph_module = self._program.graph_module
        self._names = {node: node.name for node in graph_module.graph.nodes if not _is_graph(graph_module, node)}
        self.constants = self._constants(graph_module)
        self.nodes = tuple(self._nodes(graph_module.graph, self._names))
        names = Names(node.name for node in self.nodes)
        bodies = [module for _, module in graph_module.named_modules() if isinstance(module, fx.GraphModule)][1:]
        self.bodies = tuple(
            node
            for body in bodies
            for node in self._nodes(
                body.graph, {node: names.fresh(node.name) for node in body.graph.nodes if not _is_graph(body, node)}
            )
        )
        named = {
            str(leaf)
            for module in (graph_module, *bodies)
            for node in module.graph.nodes
            for leaf in pytree.tree_leaves((node.args, node.kwargs))
            if isinstance(leaf, torch.device)
        }
        self.devices = frozenset(named | {str(tensor.device) for tensor in self.constants.values()})

    def _constants(self, graph_module: fx.GraphModule) -> dict[str, Tensor]:
        """Also gives the placeholders of weights the weights' names."""
        held: dict[str, Tensor] = {}
        names = Names(spec.name for spec in self.inputs)
        placeholders = {node.name: node for node in graph_module.graph.nodes if node.op == "placeholder"}
        for entry in self._program.graph_signature.input_specs:
            if entry.kind in HELD and entry.target is not None:
                name = names.fresh(entry.target, prefix="self.") if entry.target not in held else entry.target
                self._names[placeholders[entry.arg.name]] = name
                held[name] = self._weight(entry.target)
        for path, module in graph_module.named_modules():
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                held.setdefault(f"{path}.{name}" if path else name, tensor.detach())
        # What the program holds and does not use.
        for name, value in (*self._program.state_dict.items(), *self._program.constants.items()):
            if isinstance(value, Tensor) and name not in held and f"self.{name}" not in held:
                held[name] = value.detach()
        return held

    def _weight(self, target: str) -> Tensor:
        tensor = self._program.state_dict.get(target)
        if tensor is None:
            tensor = self._program.constants[target]
        assert isinstance(tensor, Tensor)
        return tensor.detach()

    def _nodes(self, graph: fx.Graph, names: dict[fx.Node, str]) -> Iterator[Node]:
        for node in graph.nodes:
            if node.op == "call_function":
                yield Node(
                    name=names[node],
                    operator=_operator(node),
                    inputs=tuple(names[used] for used in node.all_input_nodes if used in names),
                    outputs=(names[node],),
                    module=_module(node),
                    source=author_line(node.meta.get("stack_trace") or ""),
                    training=_trains(node),
                )

    def values(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        remaining = iter(inputs)
        arguments: list[Any] = []
        found: dict[str, Tensor] = {}
        for entry in self._program.graph_signature.input_specs:
            if entry.kind in HELD and entry.target is not None:
                # A program may write to its buffers; the next call must find them as they were.
                arguments.append(self._weight(entry.target).clone())
            elif entry.kind is InputKind.USER_INPUT and entry.arg.name in {spec.name for spec in self.inputs}:
                found[entry.arg.name] = next(remaining).detach().cpu().clone()
                number = isinstance(entry.arg, torch.export.graph_signature.SymIntArgument)
                arguments.append(found[entry.arg.name].item() if number else found[entry.arg.name].clone())
            else:
                arguments.append(getattr(entry.arg, "value", None))
        with inference():
            _Recorder(self._program.graph_module, found).run(*arguments)
        return found


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what each operator gives."""

    def __init__(self, module: fx.GraphModule, found: dict[str, Tensor]) -> None:
        super().__init__(module)
        self.found = found

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function":
            if isinstance(result, Tensor):
                self.found[n.name] = result.detach().cpu().clone()
            elif isinstance(result, bool | int | float):
                self.found[n.name] = torch.tensor(result)
        return result


def _is_graph(owner: fx.GraphModule, node: fx.Node) -> bool:
    """A branch or a loop's body, which is no value."""
    return node.op == "get_attr" and isinstance(getattr(owner, str(node.target), None), fx.GraphModule)


def _operator(node: fx.Node) -> str:
    if isinstance(node.target, OpOverload):
        return str(node.target)
    return str(getattr(node.target, "__name__", node.target))


def _module(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _trains(node: fx.Node) -> bool:
    if not isinstance(node.target, OpOverload):
        return False
    schema = schema_of(node.target)
    arguments = {argument.name: argument.default_value for argument in schema.arguments}
    arguments |= dict(zip(arguments, node.args, strict=False))
    return trains(schema.name.removeprefix("aten::"), {**arguments, **node.kwargs})


def _spec(name: str, value: Any) -> TensorSpec:
    if isinstance(value, Tensor):
        shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
        return TensorSpec(name, dtype_name(value.dtype), shape)
    kind = "float64" if isinstance(value, float | torch.SymFloat) else "bool" if isinstance(value, bool) else "int64"
    return TensorSpec(name, kind, ())


def inspect(path: Path) -> Inspection:
    return Pt2Inspection(path)
