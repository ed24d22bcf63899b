"""Programs that compute in bfloat16, for a runtime that has kernels of it for little else than casts.

Eager's bfloat16 operators compute in float32 and round once, at the end. So does the same operator in float32 between
two casts. Weights, inputs, outputs and whatever goes from one operator to the next stay bfloat16.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from deploypipe.torch_compat.dispatch import OpOverload, pytree

WIDE, NARROW = torch.float32, torch.bfloat16
CAST: Any = torch.ops.aten._to_copy.default
AS_THEY_ARE = (
    CAST,
    torch.ops.aten.to.dtype,
    torch.ops.aten.to.dtype_layout,
    torch.ops.aten._assert_tensor_metadata.default,
)
"""Casts, and what asks for a tensor's dtype."""


def computes_in_bfloat16(program: ExportedProgram) -> bool:
    return any(_narrow(node.meta.get("val")) for graph in _graphs(program) for node in graph.nodes)


def in_float32(program: ExportedProgram) -> ExportedProgram:
    """A copy of the program whose operators compute in float32, each between casts."""
    made: ExportedProgram = copy.deepcopy(
        program.run_decompositions({})
    )  # without operators that write to their arguments
    for graph in _graphs(made):
        replaced = _between_casts(graph)
        for spec in made.graph_signature.output_specs:
            if graph is made.graph and (name := replaced.get(getattr(spec.arg, "name", ""))):
                spec.arg.name = name
    made.graph_module.recompile()
    return made


def _graphs(program: ExportedProgram) -> list[fx.Graph]:
    return [part.graph for part in program.graph_module.modules() if isinstance(part, fx.GraphModule)]


def _narrow(value: Any) -> bool:
    """Whether it is, or holds, a tensor of bfloat16."""
    return any(isinstance(leaf, Tensor) and leaf.dtype == NARROW for leaf in pytree.tree_leaves(value))


def _between_casts(graph: fx.Graph) -> dict[str, str]:
    """The names of nodes whose values others give now, and theirs."""
    replaced: dict[str, str] = {}
    widened: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, OpOverload) or node.target in AS_THEY_ARE:
            continue  # blocks of branches and loops hand on what they are given
        for source in node.all_input_nodes:
            if _narrow(source.meta.get("val")):
                if source not in widened:
                    with graph.inserting_after(source):
                        widened[source] = _cast(graph, source, WIDE)
                node.replace_input_with(source, widened[source])
        if not _narrow(node.meta.get("val")):
            continue
        node.kwargs = {name: WIDE if value == NARROW else value for name, value in node.kwargs.items()}
        parts = [user for user in node.users if user.target is operator.getitem] if _is_several(node) else [node]
        node.meta["val"] = pytree.tree_map(_widen, node.meta["val"])
        for part in parts:
            if part is node or _narrow(part.meta["val"]):
                part.meta["val"] = _widen(part.meta["val"])
                with graph.inserting_after(part):
                    back = _cast(graph, part, NARROW)
                part.replace_all_uses_with(back, delete_user_cb=lambda user, back=back: user is not back)
                replaced[part.name] = back.name
    graph.lint()
    return replaced


def _is_several(node: fx.Node) -> bool:
    return isinstance(node.meta["val"], Sequence)


def _widen(value: Any) -> Any:
    return value.to(WIDE) if isinstance(value, Tensor) and value.dtype == NARROW else value


def _cast(graph: fx.Graph, source: fx.Node, dtype: torch.dtype) -> fx.Node:
    node = graph.call_function(CAST, (source,), {"dtype": dtype})
    node.meta = {**source.meta, "val": source.meta["val"].to(dtype)}
    return node
