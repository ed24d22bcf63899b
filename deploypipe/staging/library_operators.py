"""Operators that a library registers with torch, as the operators of torch that they come to: no format knows them, and
an artifact must run where that library is not installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from deploypipe.torch_compat.dispatch import OpOverload, schema_of
from deploypipe.torch_compat.tracing import graph_of


def _grouped_mm(input: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    """Row i of `input` (rows, in) times the matrix of its expert, of `weight` (experts, in, out); the rows of expert e
    end at `offs[e]`. Rows after the last are zero. Every expert computes all rows: no format has a product that is cut
    where the data says.

    Transformers computes the experts of a mixture so where `torch._grouped_mm` cannot.
    """
    row = torch.cumsum(torch.ones_like(input[:, 0], dtype=torch.int64), 0) - 1
    expert = (row.unsqueeze(1) >= offs).sum(1, keepdim=True)
    result = torch.mm(input, weight[0])
    for number in range(1, weight.shape[0]):
        result = torch.where(expert == number, torch.mm(input, weight[number]), result)
    return torch.where(expert == weight.shape[0], 0.0, result).to(input.dtype)


COMPOSED: Mapping[str, Callable[..., Any]] = {"transformers::grouped_mm_fallback": _grouped_mm}
"""By an operator's name, what it returns."""


def without_library_operators(program: ExportedProgram) -> None:
    """Write each operator of `COMPOSED` as operators of torch."""
    for owner in program.graph_module.modules():
        if isinstance(owner, fx.GraphModule):
            for node in list(owner.graph.nodes):
                if isinstance(node.target, OpOverload) and (made := COMPOSED.get(str(schema_of(node.target).name))):
                    _compose(owner.graph, node, made)
            owner.recompile()


def _compose(graph: fx.Graph, node: fx.Node, made: Callable[..., Any]) -> None:
    inputs: list[Any] = list(node.args)
    values = [each.meta["val"] for each in inputs]
    traced = graph_of(made, values)
    with graph.inserting_before(node):
        result: Any = graph.graph_copy(traced, dict(zip(traced.find_nodes(op="placeholder"), inputs, strict=True)))
    node.replace_all_uses_with(result)
    graph.erase_node(node)
