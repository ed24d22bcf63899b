"""Last touches on a captured graph, so that every format can carry it and none does in every step what it need not."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputSpec

from deploypipe.torch_compat.dispatch import OpOverload, is_mutable, pytree, schema_of
from deploypipe.torch_compat.operators import draws_random_numbers
from deploypipe.torch_compat.symbols import symbols_in

aten = torch.ops.aten
ITEM = aten.item.default
NUMBERS = (operator.add, operator.sub, operator.mul, operator.neg, operator.lt, operator.le, operator.gt, operator.ge,
           operator.eq, operator.ne, torch.sym_max, torch.sym_min, torch.sym_not, torch.sym_ite)  # fmt: skip
"""Arithmetic of numbers that cannot fail, and so need not run where nobody asks for the result."""
MAKERS = (ITEM, aten.sym_size.int, aten.scalar_tensor.default)
INDEXING = (ITEM, aten.index_select.default, aten.index.Tensor, aten.index_put.default)
COMPARISONS = {
    operator.lt: (aten.lt.Scalar, aten.gt.Scalar),
    operator.le: (aten.le.Scalar, aten.ge.Scalar),
    operator.gt: (aten.gt.Scalar, aten.lt.Scalar),
    operator.ge: (aten.ge.Scalar, aten.le.Scalar),
    operator.eq: (aten.eq.Scalar, aten.eq.Scalar),
    operator.ne: (aten.ne.Scalar, aten.ne.Scalar),
}
"""Each comparison as one of tensors, and the one with its sides exchanged."""
WHOLE = 2**63 - 1


def simplify_program(program: ExportedProgram) -> None:
    """Write `sym_sum` as additions (the pt2 format does not know it), put blocks that only say whether gradients are
    recorded where they are called, and drop what the blocks of loops do in vain."""
    for graph_module in list(_graph_modules(program.graph_module)):
        _without_grad_modes(graph_module)
    for graph_module in list(_graph_modules(program.graph_module)):
        graph = graph_module.graph
        for node in list(graph.nodes):
            if node.op == "call_function" and node.target is torch.sym_sum:
                _as_additions(graph, node)
        if graph_module is not program.graph_module and not any(_writes(node) for node in graph.nodes):
            _without_round_trips(graph)
            _without_whole_slices(graph)
            _comparisons_of_tensors(graph)
            _flags(graph_module)
        _without_dead_numbers(graph)
    # From the inside out: what an inner loop does not read, the block around it need not be handed, either.
    for graph_module in reversed(list(_graph_modules(program.graph_module))):
        for node in graph_module.graph.nodes:
            if node.op == "call_function" and node.target is torch.ops.higher_order.while_loop:
                _counters(graph_module, node)
                _without_unread_operands(graph_module, node)
        _without_dead_numbers(graph_module.graph)
        graph_module.recompile()


def _without_grad_modes(owner: fx.GraphModule) -> None:
    """An artifact records no gradients, whatever its author's code says."""
    graph = owner.graph
    for node in graph.find_nodes(op="call_function", target=torch.ops.higher_order.wrap_with_set_grad_enabled):
        arguments: Any = node.args
        block = getattr(owner, arguments[1].target)
        _without_grad_modes(block)
        inputs = block.graph.find_nodes(op="placeholder")
        with graph.inserting_before(node):
            for inner in block.graph.find_nodes(op="get_attr"):
                setattr(owner, f"{arguments[1].target}_{inner.target}", getattr(block, inner.target))
                inner.target = f"{arguments[1].target}_{inner.target}"
            results: Any = graph.graph_copy(block.graph, dict(zip(inputs, arguments[2:], strict=True)))
        for user in list(node.users):
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
        graph.erase_node(arguments[1])


def _writes(node: fx.Node) -> bool:
    return is_mutable(node.target)


def _copies(node: fx.Node) -> bool:
    """Whether a node reads its 0-dim operand and keeps nothing of it, so that it may as well read the original."""
    if node.target in INDEXING:
        return True
    if node.target is aten.reshape.default:
        return all(user.target in INDEXING for user in node.users)
    target = node.target
    if not isinstance(target, OpOverload) or torch.Tag.pointwise not in target.tags:
        return False
    return not any(a.alias_info is not None for a in (*schema_of(target).arguments, *schema_of(target).returns))


def _without_round_trips(graph: fx.Graph) -> None:
    """`scalar_tensor(item(x))` is `x`, and `item(x)` need not be asked twice."""
    known: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.target is ITEM:
            first = known.setdefault(node.args[0], node)
            if first is not node and not _sizes(graph) & symbols_in(node.meta["val"]):
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
    return {symbol for size in sizes for symbol in symbols_in(size)}


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


def _comparisons_of_tensors(graph: fx.Graph) -> None:
    """A comparison of `item(x)` that becomes a tensor is the comparison of `x`: both are of 64-bit integers."""
    nodes: list[Any] = list(graph.nodes)
    for node in nodes:
        match = _chain(node, aten.to.dtype, aten.scalar_tensor.default, torch.sym_ite)
        if match is None or node.args[1] is not torch.bool or match.args[1:] != (1, 0):
            continue
        test: Any = match.args[0]
        if not isinstance(test, fx.Node) or test.target not in COMPARISONS:
            continue
        left, right = test.args
        direct, mirrored = COMPARISONS[test.target]
        sides: list[Any] = [(left, right, direct), (right, left, mirrored)]
        for number, other, operation in sides:
            value = other.meta.get("val") if isinstance(other, fx.Node) else other
            if _whole(number) and isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
                with graph.inserting_before(node):
                    compared = graph.call_function(operation, (number.args[0], other))
                compared.meta.update(node.meta)
                node.replace_all_uses_with(compared)
                graph.erase_node(node)
                break


def _flags(owner: fx.GraphModule) -> None:
    """A branch that only raises a flag (`break`, `continue`, `return`) is the flag or its condition."""
    for node in owner.graph.find_nodes(op="call_function", target=torch.ops.higher_order.cond):
        arguments: Any = node.args
        pred, then, orelse, operands = arguments
        blocks = [getattr(owner, str(block.target)).graph for block in (then, orelse)]
        results = [graph.output_node().args[0] for graph in blocks]
        if any(len(r) != 1 or not isinstance(r[0], fx.Node) for r in results):
            continue
        (raised,), (kept,) = results
        passed_on = []
        while kept.target in (aten.clone.default, aten.to.dtype):
            passed_on.append(kept)
            kept = kept.args[0]
        # Nothing else may happen in either branch, such as a check.
        if not (_calls(blocks[0]) == [raised] and _calls(blocks[1]) == passed_on[::-1] and len(node.users) == 1):
            continue
        inputs = blocks[1].find_nodes(op="placeholder")
        constant = raised.target is aten.scalar_tensor.default and raised.args[0] is True
        if not constant or kept not in inputs or not all(map(_flag, (raised, kept, pred))):
            continue
        (result,) = node.users
        with owner.graph.inserting_before(node):
            either = owner.graph.call_function(aten.logical_or.default, (pred, operands[inputs.index(kept)]))
        either.meta.update(result.meta)
        result.replace_all_uses_with(either)
        for old in (result, node, then, orelse):
            owner.graph.erase_node(old)
        for block in (then, orelse):
            owner.delete_submodule(str(block.target))


def _counters(owner: fx.GraphModule, node: fx.Node) -> None:
    """A number that starts as a constant and takes a constant step is counted as a tensor; it cannot overflow."""
    arguments: Any = node.args
    _, body, carried, _ = arguments
    graph = getattr(owner, str(body.target)).graph
    inputs: list[Any] = graph.find_nodes(op="placeholder")
    output: Any = graph.output_node()
    results = list(output.args[0])
    for position, (start, held, after) in enumerate(zip(carried, inputs, results, strict=False)):
        if start.target is not aten.scalar_tensor.default or not _small(start.args[0]):
            continue
        match = _chain(after, aten.scalar_tensor.default, operator.add)
        if match is None or not _whole(match.args[0]) or match.args[0].args[0] is not held or not _small(match.args[1]):
            continue
        with graph.inserting_before(after):
            results[position] = graph.call_function(aten.add.Tensor, (held, match.args[1]))
        results[position].meta.update(after.meta)
    output.args = (tuple(results),)
    _without_dead_numbers(graph)


def _calls(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op not in ("placeholder", "output")]


def _chain(node: Any, *targets: Any) -> Any:
    """The last of a chain of nodes, each the first argument of the one before; `None` if their targets are others."""
    for position, target in enumerate(targets):
        node = node.args[0] if position else node
        if not isinstance(node, fx.Node) or node.target is not target:
            return None
    return node


def _whole(node: Any) -> bool:
    """Whether a node is the number in a 0-dim tensor of 64-bit integers."""
    source: Any = node.args[0] if isinstance(node, fx.Node) and node.target is ITEM else None
    value = None if source is None else source.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dim() == 0 and value.dtype == torch.int64


def _flag(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dim() == 0 and value.dtype == torch.bool


def _small(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


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
        if not isinstance(target, OpOverload):
            continue
        for argument, value in zip(schema_of(target).arguments, node.args, strict=False):
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


def random_draw(program: ExportedProgram) -> str | None:
    """An operator of the program that draws random numbers, if there is one."""
    for graph_module in _graph_modules(program.graph_module):
        for node in graph_module.graph.nodes:
            if isinstance(node.target, OpOverload):
                name = str(schema_of(node.target).name).partition("::")[2]
                if draws_random_numbers(name, node.args, node.kwargs):
                    return name
    return None


MAY_ALIAS = {
    torch.ops.aten.reshape.default, torch.ops.aten.contiguous.default, torch.ops.aten.to.dtype,
    torch.ops.aten.to.device, torch.ops.aten.to.dtype_layout, torch.ops.aten.flatten.using_ints,
}  # fmt: skip
