"""Last touches on a captured graph, so that every format can carry it."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputSpec


def tidy(program: ExportedProgram) -> None:
    """Write `sym_sum` as additions (the pt2 format does not know it)."""
    for graph_module in _graph_modules(program.graph_module):
        for node in list(graph_module.graph.nodes):
            if node.op == "call_function" and node.target is torch.sym_sum:
                _as_additions(graph_module.graph, node)
        graph_module.recompile()


def _graph_modules(root: fx.GraphModule) -> Iterator[fx.GraphModule]:
    for module in root.modules():
        if isinstance(module, fx.GraphModule):
            yield module


def _as_additions(graph: fx.Graph, node: fx.Node) -> None:
    terms = list(node.args[0] if isinstance(node.args[0], (list, tuple)) else node.args)
    total = terms[0]
    with graph.inserting_before(node):
        for term in terms[1:]:
            value = _value(total) + _value(term)
            total = graph.call_function(operator.add, (total, term))
            total.meta["val"] = value
    assert isinstance(total, fx.Node)
    node.replace_all_uses_with(total)
    graph.erase_node(node)


def _value(term: Any) -> Any:
    return term.meta["val"] if isinstance(term, fx.Node) else term


def changed_in_place(program: ExportedProgram) -> list[InputSpec]:
    """The inputs, buffers and parameters that the program writes to, directly or through a view of them."""
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    base: dict[fx.Node, fx.Node] = {}
    found: dict[str, InputSpec] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            base[node] = node
        target = node.target
        if not isinstance(target, torch._ops.OpOverload):
            continue
        for argument, value in zip(target._schema.arguments, node.args, strict=False):
            info = argument.alias_info
            for part in value if isinstance(value, (list, tuple)) else [value]:
                if info is None or not isinstance(part, fx.Node) or part not in base:
                    continue
                base[node] = base[part]  # a view, or what an in-place operation returns
                if info.is_write:
                    found[base[part].name] = specs[base[part].name]
        if target in MAY_ALIAS and isinstance(node.args[0], fx.Node) and node.args[0] in base:
            base[node] = base[node.args[0]]
    return list(found.values())


MAY_ALIAS = {
    torch.ops.aten.reshape.default, torch.ops.aten.contiguous.default, torch.ops.aten.to.dtype,
    torch.ops.aten.to.device, torch.ops.aten.to.dtype_layout, torch.ops.aten.flatten.using_ints,
}  # fmt: skip
