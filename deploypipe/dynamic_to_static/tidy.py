"""Last touches on a captured graph, so that every format can carry it."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram


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
