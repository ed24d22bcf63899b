"""Inside a TorchScript file: its `forward` with every call of a submodule inlined."""

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.jit._fuser import optimized_execution

from deploypipe.anatomy import Anatomy, Names, Node, author_line
from deploypipe.formats.base import inference

RANDOM = {
    "aten::bernoulli", "aten::bernoulli_", "aten::multinomial", "aten::normal", "aten::normal_", "aten::rand",
    "aten::rand_like", "aten::randint", "aten::randint_like", "aten::randn", "aten::randn_like", "aten::randperm",
    "aten::uniform", "aten::uniform_",
}  # fmt: skip
NUMBERS = {"int", "float", "bool", "number"}


class TorchScriptAnatomy(Anatomy):
    inputs = ()  # it declares tensors of any kind and shape
    outputs = ()
    external = ()

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            self._module: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        self._graph = _inlined(self._module)
        self._given = [value.debugName() for value in self._graph.inputs()][1:]
        self.constants: dict[str, Tensor] = _weights(self._module)
        devices: set[str] = set()
        self._paths = self._resolve(devices)
        self.devices = frozenset(devices | _storages(path))
        names = Names()
        self.nodes = tuple(self._nodes(self._graph.nodes(), names))
        self.bodies = tuple(self._nodes(_inner(self._graph.nodes()), names))

    def _resolve(self, devices: set[str]) -> dict[str, str]:
        """The value in the graph → the constant that it is; constants in the graph are noted."""
        names = Names((*self.constants, *self._given))
        found: dict[str, str] = {}
        for name in [name for name in self._given if name in self.constants]:
            self.constants[f"self.{name}"] = self.constants.pop(name)
        for node in _all(self._graph.nodes()):
            if node.kind() == "prim::Constant":
                value, kind = node.output().toIValue(), str(node.output().type())
                if isinstance(value, Tensor):
                    name = found[node.output().debugName()] = names.fresh(node.output().debugName())
                    self.constants[name] = value.detach()
                elif kind == "Device" and value is not None:
                    devices.add(str(value))
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
            yield Node(
                name=names.fresh(outputs[0] if outputs else node.kind()),
                operator=node.kind(),
                inputs=tuple(filter(None, map(self._name, node.inputs()))),
                outputs=outputs,
                module=_hierarchy(node.getModuleHierarchy()),
                source=author_line(_range(node)),
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
                if isinstance(output.type(), torch._C.TensorType):
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
        return torch._C._create_function_from_graph("every_value", graph), names

    def values(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        function, names = self._recording
        found = {name: tensor.detach().cpu().clone() for name, tensor in zip(self._given, inputs, strict=True)}
        with inference(), optimized_execution(False):
            results = function(self._module, *(tensor.clone() for tensor in found.values()))
        for name, result in zip(names, results, strict=True):
            found[name] = result.detach().cpu() if isinstance(result, Tensor) else torch.tensor(result)
        return found


def _inlined(module: Any) -> Any:
    """`forward`'s graph, calls inlined, the branches on `self.training` decided as the file has it."""
    graph = module._c._get_method("forward").graph.copy()
    torch._C._jit_pass_inline(graph)
    for node in graph.findAllNodes("prim::GetAttr"):
        if node.s("name") == "training":
            owner = _path(node.input())
            with graph.insert_point_guard(node):
                flag = graph.insertConstant(_follow(module, owner or "").training)
            node.output().replaceAllUsesWith(flag)
    torch._C._jit_pass_constant_propagation(graph)
    torch._C._jit_pass_dce(graph)
    return graph


def _path(value: Any) -> str | None:
    """ "network.0.weight" for a chain of attributes from `self`; None for any other value."""
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


def _all(nodes: Iterator[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        for block in node.blocks():
            yield from _all(block.nodes())


def _inner(nodes: Iterator[Any]) -> Iterator[Any]:
    for node in nodes:
        for block in node.blocks():
            yield from _all(block.nodes())


def _hierarchy(text: str) -> str:
    """ "c(Sequential).0(Conv2d).SELF(Conv2d)" → "c.0"."""
    parts = re.findall(r"([^.()]+)\([^()]*\)", text)
    return ".".join(part for part in parts if part not in ("SELF", "UNKNOWN_INSTANCE"))


def _range(node: Any) -> str:
    """The author's part of what TorchScript keeps; a file that was generated has none."""
    text = str(node.sourceRange()).partition("Serialized")[0]
    return "" if "generated.py" in text else text


def _trains(node: Any) -> bool:
    kind = node.kind()
    if kind == "aten::batch_norm":
        # Without running statistics eager normalises so in eval mode, too.
        return node.inputsAt(5).toIValue() is True and not node.inputsAt(3).node().mustBeNone()
    if "dropout" in kind:
        return node.namedInput("train").toIValue() is True
    return kind in RANDOM


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
