"""Last touches on a captured graph, so that every format can carry it and none does in every step what it need not."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputSpec
from torch.utils import _pytree as pytree

aten = torch.ops.aten
ITEM = aten.item.default
NUMBERS = (operator.add, operator.sub, operator.mul, operator.neg, operator.lt, operator.le, operator.gt, operator.ge,
           operator.eq, operator.ne, torch.sym_max, torch.sym_min, torch.sym_not, torch.sym_ite)  # fmt: skip
"""Arithmetic of numbers that cannot fail, and so need not run where nobody asks for the result."""
MAKERS = (ITEM, aten.sym_size.int, aten.scalar_tensor.default)
SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
INDEXING = (ITEM, aten.index_select.default, aten.index.Tensor, aten.index_put.default)
WHOLE = 2**63 - 1


def tidy(program: ExportedProgram) -> None:
    """Write `sym_sum` as additions (the pt2 format does not know it), and drop what the blocks of loops do in vain."""
    for graph_module in _graph_modules(program.graph_module):
        graph = graph_module.graph
        for node in list(graph.nodes):
            if node.op == "call_function" and node.target is torch.sym_sum:
                _as_additions(graph, node)
        if graph_module is not program.graph_module and not any(_writes(node) for node in graph.nodes):
            _without_round_trips(graph)
            _without_whole_slices(graph)
        _without_dead_numbers(graph)
    # From the inside out: what an inner loop does not read, the block around it need not be handed, either.
    for graph_module in reversed(list(_graph_modules(program.graph_module))):
        for node in graph_module.graph.nodes:
            if node.op == "call_function" and node.target is torch.ops.higher_order.while_loop:
                _without_unread_operands(graph_module, node)
        _without_dead_numbers(graph_module.graph)
        graph_module.recompile()


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _copies(node: fx.Node) -> bool:
    """Whether a node reads its 0-dim operand and keeps nothing of it, so that it may as well read the original."""
    if node.target in INDEXING:
        return True
    if node.target is aten.reshape.default:
        return all(user.target in INDEXING for user in node.users)
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.pointwise not in target.tags:
        return False
    return not any(a.alias_info is not None for a in (*target._schema.arguments, *target._schema.returns))


def _without_round_trips(graph: fx.Graph) -> None:
    """`scalar_tensor(item(x))` is `x`, and `item(x)` need not be asked twice."""
    known: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.target is ITEM:
            first = known.setdefault(node.args[0], node)
            if first is not node and not _sizes(graph) & _symbols(node.meta["val"]):
                node.replace_all_uses_with(first)
                graph.erase_node(node)
        elif node.target is aten.scalar_tensor.default and isinstance(node.args[0], fx.Node):
            source = node.args[0].args[0] if node.args[0].target is ITEM else None
            if isinstance(source, fx.Node) and _alike(source, node):
                node.replace_all_uses_with(source, delete_user_cb=_copies)


def _sizes(graph: fx.Graph) -> set[Any]:
    """The symbols that the shapes of a graph's tensors are made of."""
    tensors = [
        t for node in graph.nodes for t in pytree.tree_leaves(node.meta.get("val")) if isinstance(t, torch.Tensor)
    ]
    sizes = [s for t in tensors for s in (*t.shape, *t.stride()) if isinstance(s, torch.SymInt)]
    return {symbol for size in sizes for symbol in _symbols(size)}


def _symbols(number: Any) -> set[Any]:
    return set(number.node.expr.free_symbols) if isinstance(number, SYMBOLIC) else set()


def _alike(a: fx.Node, b: fx.Node) -> bool:
    x, y = a.meta.get("val"), b.meta.get("val")
    return (
        isinstance(x, torch.Tensor)
        and isinstance(y, torch.Tensor)
        and x.dim() == y.dim() == 0
        and x.dtype == y.dtype
        and x.device == y.device
    )


def _without_whole_slices(graph: fx.Graph) -> None:
    """`x[:]` is `x`, unless it is returned: a block must not return what it was given."""
    for node in list(graph.nodes):
        if node.target is aten.slice.Tensor and tuple(node.args[2:]) == (0, WHOLE) and not node.kwargs:
            whole: Any = node.args[0]
            node.replace_all_uses_with(whole, delete_user_cb=lambda user: user.op == "call_function")
            if not node.users:
                graph.erase_node(node)


def _without_dead_numbers(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and node.target in (*NUMBERS, *MAKERS):
            graph.erase_node(node)


def _without_unread_operands(owner: fx.GraphModule, node: fx.Node) -> None:
    """Drop what is handed to a loop from around it and read by neither its condition nor its body."""
    arguments: Any = node.args
    test, body, carried, additional = arguments
    graphs = [getattr(owner, str(block.target)).graph for block in (test, body)]
    inputs = [graph.find_nodes(op="placeholder") for graph in graphs]
    kept: list[Any] = []
    for position, operand in enumerate(additional, start=len(carried)):
        mine = [each[position] for each in inputs]
        if any(each.users for each in mine):
            kept.append(operand)
            continue
        for graph, placeholder in zip(graphs, mine, strict=True):
            graph.erase_node(placeholder)
    node.args = (test, body, carried, tuple(kept))


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
