"""Inside a TorchScript file: its `forward` with every call of a submodule inlined."""

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deploypipe.formats.aten import trains
from deploypipe.formats.inspection import Inspection, Names, Node, author_line
from deploypipe.formats.torch_session import inference
from deploypipe.torch_compat import script_graphs

NUMBERS = {"int", "float", "bool", "number"}


class TorchScriptInspection(Inspection):
    inputs = ()  # it declares tensors of any kind and shape
    outputs = ()
    external = ()

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            self._module: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        self._graph = _inlined(self._module)
        self.devices = frozenset(_named_devices(self._graph) | _storages(path))
        script_graphs.simplify(self._graph)
        self._given = [value.debugName() for value in self._graph.inputs()][1:]
        self.returned = tuple(value.debugName() for value in self._graph.outputs())
        self.constants: dict[str, Tensor] = _weights(self._module)
        self._paths = self._resolve()
        self._calls: dict[str, str] = {}
        for called, line in _calls(self._module):
            self._calls.setdefault(called, line)
        names = Names()
        self.nodes = tuple(self._nodes(self._graph.nodes(), names))
        self.bodies = tuple(self._nodes(_inner(self._graph.nodes()), names))

    def _resolve(self) -> dict[str, str]:
        """The value in the graph → the constant that it is; constants in the graph are noted."""
        names = Names((*self.constants, *self._given))
        found: dict[str, str] = {}
        for name in [name for name in self._given if name in self.constants]:
            self.constants[f"self.{name}"] = self.constants.pop(name)
        for node in _all(self._graph.nodes()):
            if node.kind() == "prim::Constant":
                value = node.output().toIValue()
                if isinstance(value, Tensor):
                    name = found[node.output().debugName()] = names.fresh(node.output().debugName())
                    self.constants[name] = value.detach()
            elif node.kind() == "prim::GetAttr":
                path = _path(node.output())
                value = None if path is None else _follow(self._module, path)
                if path is not None and isinstance(value, Tensor):
                    name = found[node.output().debugName()] = f"self.{path}" if path in self._given else path
                    self.constants.setdefault(name, value.detach())
        return found

    def _nodes(self, nodes: Iterator[Any], names: Names) -> Iterator[Node]:
        for node in nodes:
            if node.kind() in ("prim::Constant", "prim::GetAttr"):
                continue
            outputs = tuple(output.debugName() for output in node.outputs())
            module = _hierarchy(node.getModuleHierarchy())
            yield Node(
                name=names.fresh(outputs[0] if outputs else node.kind()),
                operator=node.kind(),
                inputs=tuple(filter(None, map(self._name, (*node.inputs(), *_captured(node))))),
                outputs=outputs,
                module=module,
                source=author_line(_range(node)) or self._calls.get(module, ""),
                training=_trains(node),
            )

    def _name(self, value: Any) -> str:
        """ "" for a number, a string or None, which the graph has as constants."""
        literal = value.node().kind() == "prim::Constant"
        return self._paths.get(value.debugName(), "" if literal else value.debugName())

    @cached_property
    def _recording(self) -> tuple[Any, list[str]]:
        """The graph as a function that returns every value, and their names."""
        graph = self._graph.copy()
        with graph.insert_point_guard(next(graph.nodes())):
            none = graph.insertConstant(None)
        names, kept = [], []
        # Unnamed values are numbered anew in a copy.
        for original, node in zip(list(self._graph.nodes()), list(graph.nodes())[1:], strict=True):
            if node.kind() in ("prim::Constant", "prim::GetAttr"):
                continue
            for name, output in zip(original.outputs(), node.outputs(), strict=True):
                if not _initialised(output):
                    continue
                if script_graphs.is_tensor(output):
                    clone = graph.create("aten::clone", [output, none], 1)
                    clone.insertAfter(node)
                    kept.append(clone.output())
                elif str(output.type()) in NUMBERS:
                    kept.append(output)
                else:
                    continue
                names.append(name.debugName())
        for index in reversed(range(len(list(graph.outputs())))):
            graph.eraseOutput(index)
        for value in kept:
            graph.registerOutput(value)
        graph.makeMultiOutputIntoTuple()
        return script_graphs.function_from(graph, "every_value"), names

    def values(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        function, names = self._recording
        found = {name: tensor.detach().cpu().clone() for name, tensor in zip(self._given, inputs, strict=True)}
        with inference(), script_graphs.as_written():
            results = function(self._module, *(tensor.clone() for tensor in found.values()))
        for name, result in zip(names, results, strict=True):
            found[name] = result.detach().cpu() if isinstance(result, Tensor) else torch.tensor(result)
        return found


def _inlined(module: Any) -> Any:
    """`forward`'s graph, calls inlined, the branches on `self.training` decided as the file has it."""
    graph = script_graphs.graph_of(module).copy()
    script_graphs.inline_calls(graph)
    for node in graph.findAllNodes("prim::GetAttr"):
        if node.s("name") == "training":
            owner = _path(node.input())
            with graph.insert_point_guard(node):
                flag = graph.insertConstant(_follow(module, owner or "").training)
            node.output().replaceAllUsesWith(flag)
    return graph


def _named_devices(graph: Any) -> set[str]:
    constants = [node.output() for node in _all(graph.nodes()) if node.kind() == "prim::Constant"]
    return {str(value.toIValue()) for value in constants if str(value.type()) == "Device"}


def _initialised(value: Any) -> bool:
    """Whether it has a value whatever the branches and loops before it do: an early return leaves some without."""
    node = value.node()
    if node.kind() != "prim::Uninitialized" and any(_always(use.user) for use in value.uses()):
        return True
    if node.kind() not in ("prim::If", "prim::Loop"):
        return bool(node.kind() != "prim::Uninitialized")
    position = [output.debugName() for output in node.outputs()].index(value.debugName())
    if node.kind() == "prim::If":
        return all(_initialised(list(block.outputs())[position]) for block in node.blocks())
    body = next(node.blocks())
    return _initialised(list(node.inputs())[position + 2]) and _initialised(list(body.outputs())[position + 1])


def _always(node: Any) -> bool:
    """Whether a node of the top level, or the graph's return, uses its inputs whatever happens."""
    return node.kind() not in ("prim::If", "prim::Loop") and node.owningBlock().owningNode() is None


def _calls(module: Any, path: str = "", method: str = "forward", line: str = "") -> Iterator[tuple[str, str]]:
    """Each submodule that is called, and the author's line that calls it or the module around it."""
    for node in _all(script_graphs.graph_of(module, method).nodes()):
        inner = _path(next(node.inputs())) if node.kind() == "prim::CallMethod" else None
        if inner is not None:
            here, called = author_line(_range(node)) or line, f"{path}.{inner}".strip(".")
            yield called, here
            yield from _calls(_follow(module, inner), called, node.s("name"), here)


def _path(value: Any) -> str | None:
    """ "network.0.weight" for attributes of attributes of `self`; None for any other value."""
    node = value.node()
    if node.kind() == "prim::Param":
        return "" if value.debugName() == next(node.outputs()).debugName() else None
    if node.kind() != "prim::GetAttr":
        return None
    owner = _path(node.input())
    return None if owner is None else f"{owner}.{node.s('name')}".lstrip(".")


def _follow(module: Any, path: str) -> Any:
    for part in path.split(".") if path else ():
        module = getattr(module, part)
    return module


def _weights(module: Any) -> dict[str, Tensor]:
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: tensor.detach() for name, tensor in named}


def _all(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        for block in node.blocks():
            yield from _all(block.nodes())


def _inner(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for block in node.blocks():
            yield from _all(block.nodes())


def _captured(node: Any) -> list[Any]:
    """What the blocks of a branch or a loop read from around it; modules are no values."""
    inner = list(_inner([node]))
    blocks = [block for owner in (node, *inner) for block in owner.blocks()]
    own = {value.debugName() for part in (*inner, *(block.paramNode() for block in blocks)) for value in part.outputs()}
    used = [value for part in (*inner, *(block.returnNode() for block in blocks)) for value in part.inputs()]
    around = {value.debugName(): value for value in used if value.debugName() not in own}
    return [value for value in around.values() if value.type().kind() != "ClassType"]


def _hierarchy(text: str) -> str:
    """ "c(Sequential).0(Conv2d).SELF(Conv2d)" → "c.0"."""
    parts = re.findall(r"([^.()]+)\([^()]*\)", text)
    return ".".join(part for part in parts if part not in ("SELF", "UNKNOWN_INSTANCE"))


def _range(node: Any) -> str:
    """The author's part of what TorchScript keeps; a file that was generated has none."""
    text = str(node.sourceRange()).partition("Serialized")[0]
    return "" if "generated.py" in text else text


def _trains(node: Any) -> bool:
    if not node.kind().startswith("aten::") or node.schema() == "(no schema)":
        return False
    schema = script_graphs.parsed_schema(node.schema())
    arguments = {
        argument.name: value.toIValue() if value.node().kind() == "prim::Constant" else value
        for argument, value in zip(schema.arguments, node.inputs(), strict=False)
    }
    return trains(schema.name.removeprefix("aten::"), arguments)


def _storages(path: Path) -> set[str]:
    """The devices on which the file's tensors were, which `map_location` hides."""
    found = set()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith((".pkl",)):
                for _, argument, _ in pickletools.genops(io.BytesIO(archive.read(name))):
                    if isinstance(argument, str) and re.fullmatch(r"(cpu|cuda(:\d+)?|mps(:\d+)?|xpu(:\d+)?)", argument):
                        found.add(argument)
    return found


def inspect(path: Path) -> Inspection:
    return TorchScriptInspection(path)
