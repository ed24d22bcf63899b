"""Canaries: one for each private API of torch that is used, named after the entry that stands on it. Where a release of
torch moves one, this file fails first and says which entry of `deploypipe/torch_compat/` to mend."""

import copy
import inspect
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from deploypipe.torch_compat import (
    around,
    dispatch,
    guards,
    kernels,
    nodes,
    onnx_exporter,
    packed,
    quantized,
    recurrent,
    script_graphs,
    scripted,
    symbols,
    tracing,
    wrappers,
)


def traced(forward: Callable[..., Any], *inputs: Tensor) -> torch.export.ExportedProgram:
    """Exports `forward` with two dynamic axes, and runs what it asks for in the middle of the trace."""

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return forward(x)

    sizes = {axis: torch.export.Dim(name, min=0) for axis, name in enumerate(("rows", "columns"))}
    with symbols.sizes_stay_open():
        return torch.export.export(Module(), inputs, dynamic_shapes=(sizes,), strict=False)


X = torch.arange(20.0).reshape(5, 4)


# dispatch


def test_schema_of_says_what_an_operator_takes() -> None:
    add = torch.ops.aten.add.Tensor
    assert isinstance(add, dispatch.OpOverload)
    assert [argument.name for argument in dispatch.schema_of(add).arguments] == ["self", "other", "alpha"]
    assert dispatch.schema_of(len) is None


def test_is_mutable_knows_operators_that_write() -> None:
    assert dispatch.is_mutable(torch.ops.aten.add_.Tensor)
    assert not dispatch.is_mutable(torch.ops.aten.add.Tensor)
    assert not dispatch.is_mutable(len)


def test_storage_id_is_shared_by_views_alone() -> None:
    assert dispatch.storage_id(X) == dispatch.storage_id(X[1:])
    assert dispatch.storage_id(X) != dispatch.storage_id(X.clone())


def test_a_registered_node_is_opened_and_made_again() -> None:
    assert nodes.open_node(object()) is None
    container = nodes.open_node(deque([X, X], maxlen=3))
    assert container is not None and container.context == (3,) and list(container.keys) == [0, 1]
    made = nodes.object_of(container.title, dict(enumerate(container.items)), *container.context)
    assert isinstance(made, deque) and made.maxlen == 3 and made[0] is X


def test_unwrapped_finds_the_author_s_module() -> None:
    module = nn.Linear(2, 2)
    assert wrappers.unwrapped(module) is module
    for wrapped in (torch.compile(module, backend="eager"), nn.DataParallel(module)):
        assert wrappers.unwrapped(wrapped) is module


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_sequences_stay_open_in_the_trace_and_in_decompositions(kind: type[nn.Module]) -> None:
    from torch._decomp import decomposition_table

    layer = kind(4, 3)
    before = {operator: dict(operator.py_kernels) for operator in (*recurrent.LSTMS, *recurrent.OTHERS)}
    table = dict(decomposition_table)
    length = {0: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), recurrent.sequences_stay_open():
        program = torch.export.export(layer, (X[:, None],), dynamic_shapes=(length,), strict=False)
        again = program.run_decompositions({})
    for each in (program, again):
        longer = torch.cat([X, X])[:, None]
        assert torch.equal(each.module()(longer)[0], layer(longer)[0])
    assert before == {operator: dict(operator.py_kernels) for operator in before}
    assert table == dict(decomposition_table)


def test_packed_sequences_are_traced_and_all_is_put_back() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(4, 3, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            found: Tensor = pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=x.shape[1])[0]
            return found

    module, forwards = Packed(), (nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward)
    before = packed.op_implementations_dict.get(packed.PACK)
    open_axis = torch.export.Dim.DYNAMIC
    given = torch.randn(3, 5, 4), torch.tensor([2, 5, 1])
    with torch.no_grad(), recurrent.sequences_stay_open():
        axes = ({0: open_axis, 1: open_axis}, {0: open_axis})
        program = torch.export.export(module, given, dynamic_shapes=axes, strict=False)
    for x, lengths in (given, (torch.randn(2, 7, 4), torch.tensor([1, 6]))):
        assert torch.equal(program.module()(x, lengths), module(x, lengths))
    assert (nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward) == forwards
    assert packed.op_implementations_dict.get(packed.PACK) is before and "_pad_packed_sequence" not in vars(packed._VF)


def test_a_script_module_is_called_by_name_and_made_traceable() -> None:
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return self.layer(x)
            return -x

    script = torch.jit.script(Decides())
    called = wrappers.unwrapped(script)
    assert isinstance(called, scripted.Scripted) and type(called).__name__ == "Decides"
    assert str(inspect.signature(called.forward)) == "(x)"
    assert (
        dict(called.named_parameters()).keys() == dict(script.named_parameters()).keys() == called.state_dict().keys()
    )
    assert torch.equal(called(x=X), script(X)) and torch.equal(copy.deepcopy(called)(X), script(X))
    graph = scripted.traceable(called, (X,))
    program = torch.export.export(graph, (X,), strict=False)
    assert any(node.target is torch.ops.higher_order.cond for node in program.graph.nodes)
    for x in (X, -X):
        assert torch.equal(program.module()(x), script(x))


def test_a_dispatch_mode_sees_every_operator() -> None:
    seen = []

    class Watch(dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Watch():
        X + 1
    assert seen == [torch.ops.aten.add.Tensor]


def test_pytree_reads_and_rebuilds_nested_arguments() -> None:
    leaves, form = dispatch.pytree.tree_flatten({"a": [1, (2,)]})
    assert leaves == [1, 2] == dispatch.pytree.tree_leaves({"a": [1, (2,)]})
    assert dispatch.pytree.tree_unflatten(leaves, form) == {"a": [1, (2,)]}


def test_decomposition_of_computes_the_same_by_simpler_operators() -> None:
    decomposition = dispatch.decomposition_of(torch.ops.aten.hardtanh.default)
    assert decomposition is not None
    assert torch.equal(decomposition(X, 1.0, 7.0), X.clamp(1, 7))
    assert dispatch.decomposition_of(len) is None


# onnx_exporter


class Steps(nn.Module):
    """A loop whose condition and body are subgraphs, and a number that is only known when it runs."""

    def forward(self, x: Tensor) -> Tensor:
        first = x.sum().to(torch.int64).item()

        def more(turn: Tensor, total: Tensor) -> Tensor:
            return turn < 3

        def step(turn: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            return turn + 1, total * 2

        return torch.while_loop(more, step, (torch.tensor(0), x + first))[1]  # type: ignore[no-any-return]


def to_onnx(**options: Any) -> Any:
    program = torch.export.export(Steps(), (X,), strict=False)
    made = torch.onnx.export(program, dynamo=True, verbose=False, **options)
    assert made is not None
    return made.model_proto


def test_the_exporters_while_loop_is_inlined() -> None:
    with onnx_exporter.no_symbols_left_pending(), onnx_exporter.translations_read_once():
        proto = to_onnx(custom_translation_table={torch.ops.higher_order.while_loop: onnx_exporter.while_loop})
    (loop,) = [node for node in proto.graph.node if node.op_type == "Loop"]
    inner = [node for attribute in loop.attribute for node in attribute.g.node]
    assert inner and all(node.domain == "" for node in (*proto.graph.node, *inner))


def test_no_symbols_left_pending_replaces_what_the_exporter_calls() -> None:
    inside = onnx_exporter._fx_passes, onnx_exporter.graph_capture
    names = ("insert_type_promotion_nodes", "_create_graph")
    before = [getattr(module, name) for module, name in zip(inside, names, strict=True)]
    with onnx_exporter.no_symbols_left_pending():
        assert all(
            getattr(module, name) is not original for module, name, original in zip(inside, names, before, strict=True)
        )
    assert [getattr(module, name) for module, name in zip(inside, names, strict=True)] == before


def test_translations_read_once_gives_each_caller_its_own_registry() -> None:
    registry = onnx_exporter._registration.ONNXRegistry
    with onnx_exporter.translations_read_once():
        first, hits = registry.from_torchlib(), onnx_exporter._torchlib.cache_info().hits
        second = registry.from_torchlib()
    assert onnx_exporter._torchlib.cache_info().hits == hits + 1
    assert first.functions.keys() == second.functions.keys() and first.functions is not second.functions
    plain = registry.from_torchlib()
    assert plain.functions.keys() == first.functions.keys() and plain.opset_version == first.opset_version


# script_graphs


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        unused = x + 1  # noqa: F841
        return self.layer(x) * (2 + 3)


@pytest.fixture(scope="module")
def script() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(Scripted())


def test_a_script_graph_is_inlined_and_simplified(script: Any) -> None:
    graph = script_graphs.graph_of(script).copy()
    assert "prim::CallMethod" in {node.kind() for node in graph.nodes()}
    script_graphs.inline_calls(graph)
    script_graphs.simplify(graph)
    kinds = [node.kind() for node in graph.nodes()]
    assert "aten::linear" in kinds and "prim::CallMethod" not in kinds and "aten::add" not in kinds


def test_a_script_graph_runs_as_a_function(script: Any) -> None:
    graph = script_graphs.graph_of(script).copy()
    script_graphs.inline_calls(graph)
    function = script_graphs.function_from(graph, "forward_again")
    with script_graphs.as_written(), torch.no_grad():
        assert torch.equal(function(script, X), script(X))


def test_the_values_and_schemas_of_a_script_graph(script: Any) -> None:
    graph = script_graphs.graph_of(script)
    own, given = graph.inputs()
    assert script_graphs.is_tensor(given) and not script_graphs.is_tensor(own)
    (product,) = graph.findAllNodes("aten::mul")
    schema = script_graphs.parsed_schema(product.schema())
    assert schema.name == "aten::mul" and [argument.name for argument in schema.arguments] == ["self", "other"]


# symbols


def test_the_symbol_of_an_axis_and_of_a_number() -> None:
    def forward(x: Tensor) -> Tensor:
        (axis,) = symbols.symbols_in(x.shape[0])
        (whole,) = symbols.symbols_in(x.sum().to(torch.int64).item())
        (real,) = symbols.symbols_in(x.sum().item())
        assert symbols.is_axis(axis) and not symbols.is_unbacked(axis)
        assert symbols.is_unbacked(whole) and not symbols.is_axis(whole) and not symbols.is_unbacked_float(whole)
        assert symbols.is_unbacked(real) and symbols.is_unbacked_float(real)
        assert symbols.symbols_in(3) == set()
        return x + 1

    traced(forward, X)


def test_rename_symbols_finds_them_in_a_size_as_torch_writes_it() -> None:
    def forward(x: Tensor) -> Tensor:
        assert symbols.rename_symbols(f"{x.shape[0] + 1}", {str(x.shape[0]): "rows"}) == "rows + 1"
        number = x.sum().to(torch.int64).item()
        assert symbols.rename_symbols(f"{number * 2}", {str(number): "steps"}) == "2*steps"
        return x + 1

    traced(forward, X)


def test_a_symbol_as_a_number() -> None:
    def forward(x: Tensor) -> Tensor:
        for number, kind in ((x.shape[0], torch.SymInt), (x.sum().item(), torch.SymFloat)):
            environment = symbols.shape_environment_of(number)
            (symbol,) = symbols.symbols_in(number)
            again = symbols.as_number(symbol, environment)
            assert isinstance(again, kind)
            assert symbols.same_expression(again, number)
            assert symbol in symbols.all_symbols(environment)
        assert not symbols.same_expression(x.shape[0], x.shape[0] + 1)
        return x + 1

    traced(forward, X)


def test_depends_on_data_and_constant_of() -> None:
    def forward(x: Tensor) -> Tensor:
        number = x.sum().to(torch.int64).item()
        assert symbols.depends_on_data(number)
        assert not symbols.depends_on_data(x.shape[0])
        assert symbols.constant_of(x.shape[0] + 3 - x.shape[0]) == 3
        assert symbols.constant_of(x.shape[0]) is None
        assert symbols.constant_of(4) == 4
        return x + 1

    traced(forward, X)


def test_axis_against_constant() -> None:
    def forward(x: Tensor) -> Tensor:
        found = symbols.axis_against_constant(x.shape[0] < 2)
        assert found is not None
        axis, operator, number = found
        assert symbols.same_expression(axis, x.shape[0])
        assert (operator, number) == ("<", 2)
        return x + 1

    traced(forward, X)


def test_known_not_negative_holds_inside_only() -> None:
    def forward(x: Tensor) -> Tensor:
        number = x.sum().to(torch.int64).item()
        with symbols.known_not_negative(number):
            assert symbols.statically_known_true(number >= 0)
        environment, (symbol,) = symbols.shape_environment_of(number), symbols.symbols_in(number)
        assert environment.var_to_range[symbol].lower < 0
        return x + 1

    traced(forward, X)


@pytest.mark.parametrize(
    "inside", [symbols.demands_stay_local, symbols.no_inequalities_kept, symbols.no_guards_kept],
    ids=lambda entry: entry.__name__,
)  # fmt: skip
def test_guards_are_forgotten(inside: Callable[[Any], Any]) -> None:
    def forward(x: Tensor) -> Tensor:
        environment = tracing.shape_environment()
        before = len(environment.guards)
        with inside(environment):
            assert x.shape[0] > x.shape[1]  # a guard
            assert len(environment.guards) > before
        assert len(environment.guards) == before
        return x + 1

    traced(forward, X)


def test_sizes_stay_open_lets_size_one_be_symbolic() -> None:
    program = traced(lambda x: x * 2, X[:1])
    assert program.module()(X).shape == (5, 4)


def test_rebuild_all_expressions() -> None:
    symbols.rebuild_all_expressions()
    program = traced(lambda x: torch.zeros(torch.sym_max(x.shape[0], x.sum().to(torch.int64).item())), X)
    assert torch.sym_max in {node.target for node in program.graph.nodes}


def test_unwritable_number_is_what_save_refuses() -> None:
    def plain(x: Tensor) -> Tensor:
        return x + x.shape[0] // 2

    def floored(x: Tensor) -> Tensor:
        return x + x.sum().item() // 0.7

    assert symbols.unwritable_number(traced(plain, X)) is None
    assert symbols.unwritable_number(traced(floored, X)) == "floor"


# tracing


def test_shape_environment_is_that_of_the_trace() -> None:
    def forward(x: Tensor) -> Tensor:
        assert tracing.shape_environment() is symbols.shape_environment_of(x.shape[0])
        return x + 1

    traced(forward, X)


def test_tracer_notes_submodules_and_submodules_left_leaves_them() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise LookupError

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Fails()

        def forward(self, x: Tensor) -> Tensor:
            tracer = tracing.tracer()
            assert tracer is not None
            before = dict(tracer.module_stack)
            with pytest.raises(LookupError), tracing.submodules_left(tracer):
                self.inner(x)
            assert dict(tracer.module_stack) == before
            return x + 1

    torch.export.export(Outer(), (X,), strict=False)
    assert tracing.tracer() is None


def test_outside_the_graph_leaves_nothing_in_the_program() -> None:
    def forward(x: Tensor) -> Tensor:
        with tracing.outside_the_graph():
            x.exp().sum().item()
        return x + 1

    program = traced(forward, X)
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.add.Tensor"]


def test_redirect_lets_a_tensor_mean_another() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 1
        tracing.redirect(y, x * 3)
        return y + 0

    assert torch.equal(traced(forward, X).module()(X), X * 3)


def test_remembered_number_is_the_symbol_of_an_item() -> None:
    def forward(x: Tensor) -> Tensor:
        total = x.sum()
        assert tracing.remembered_number(total) is None
        number = total.item()
        assert symbols.same_expression(tracing.remembered_number(total), number)
        tracing.remember_number(total, None)
        assert not symbols.same_expression(total.item(), number)
        return x + 1

    traced(forward, X)


def test_assert_in_graph_is_asked_when_the_program_runs() -> None:
    def forward(x: Tensor) -> Tensor:
        tracing.assert_in_graph(x.sum() > 0, "too small")
        return x + 1

    program = traced(forward, X).module()
    program(X)
    with pytest.raises(RuntimeError, match="too small"):
        program(-X)


def test_no_overlap_question_is_asked_of_copies() -> None:
    def forward(x: Tensor) -> Tensor:
        environment = tracing.shape_environment()
        before = len(environment.guards)
        with tracing.no_overlap_question():
            assert torch._debug_has_internal_overlap(x) == 0
            x.clone().copy_(x)
        assert len(environment.guards) == before
        return x + 1

    traced(forward, X)
    assert torch._debug_has_internal_overlap(X[:1].expand(3, 4)) != 0


# kernels


def test_move_towards_changes_the_tensors_in_place() -> None:
    tensors = [torch.zeros(2), torch.ones(3)]
    kernels.move_towards(tensors, [torch.full((2,), 4.0), torch.zeros(3)], 0.25)
    assert tensors[0].tolist() == [1.0, 1.0] and tensors[1].tolist() == [0.75] * 3


def test_batch_norm_is_the_base_of_every_one() -> None:
    for layer in (nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2)):
        assert isinstance(layer, kernels.BatchNorm)


def test_cpu_computes_bfloat16_is_known() -> None:
    assert kernels.cpu_computes_bfloat16() in (True, False)


def test_mps_generator_is_where_torch_has_it() -> None:
    """It can be called on Apple's machines only."""
    assert callable(torch.mps._get_default_mps_generator)


# guards


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] > 3 else x


def asked() -> tuple[torch.export.ExportedProgram, list[guards.Guard]]:
    found: list[guards.Guard] = []
    with symbols.sizes_stay_open(), guards.noting_guards(found):
        program = torch.export.export(Asks(), (X,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)
    return program, found


def test_noting_guards_sees_each_and_who_asked() -> None:
    _, (guard, *_) = asked()
    assert guard.stack[-1].code.co_name == "forward"
    (symbol,) = guard.symbols
    assert str(guard) == f"{symbol} > 3"
    assert guard.holds({symbol: 4}) and not guard.holds({symbol: 3})


def test_forget_guards_lets_a_program_run_at_every_size() -> None:
    program, found = asked()
    with pytest.raises(AssertionError):
        program.module()(X[:2])
    guards.forget_guards(program, found[0].symbols)
    assert torch.equal(program.module()(X[:2]), X[:2] * 2)


def test_symbol_name_is_that_of_an_axis_alone() -> None:
    names: list[str | None] = []

    def forward(x: Tensor) -> Tensor:
        names.extend(symbols.symbol_name(size) for size in (x.shape[0], x.shape[0] + 1, 4))
        return x

    traced(forward, X)
    assert str(names[0]).startswith("s") and names[1:] == [None, None]


def test_distributions_are_unchecked_inside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)  # torch.compile turns it off
    with tracing.distributions_unchecked():
        torch.distributions.Normal(0.0, -1.0)
    with pytest.raises(ValueError):
        torch.distributions.Normal(0.0, -1.0)


def test_a_module_that_is_where_it_should_be_is_not_moved() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    moved: list[torch.Tensor] = []
    with tracing.modules_moved_where_needed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils, "swap_tensors", lambda old, new: moved.append(old))
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            assert module.to(torch.float32).float().cpu() is module and not moved
            module.double()
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
    assert {id(tensor) for tensor in moved} == {id(tensor) for tensor in module.parameters()}


def test_a_module_around_another_shows_its_tree_and_takes_an_argument_more() -> None:
    class Twice(around.Around):
        def run(self, factor: float, *args: Any) -> Any:
            return self.author(*args) * factor

    author = nn.Linear(2, 3)
    made = around.with_parameter(Twice, author, around.parameter_beside(author, "input"))
    assert dict(made.named_parameters()).keys() == dict(author.named_parameters()).keys()
    assert (type(made).__name__, list(inspect.signature(made.forward).parameters)) == ("Linear", ["input", "input_"])
    x = torch.ones(1, 2)
    assert torch.equal(copy.deepcopy(made)(x, input_=2.0), author(x) * 2)


def test_graph_of_holds_what_a_function_calls() -> None:
    program = torch.export.export(nn.ReLU(), (torch.ones(2, 3),))
    value = next(iter(program.graph.nodes)).meta["val"]
    graph = tracing.graph_of(lambda x: x * 2 + 1, [value])
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.mul.Tensor,
        torch.ops.aten.add.Tensor,
    ]


@pytest.mark.filterwarnings("ignore")
def test_what_stands_for_a_quantized_layer_is_the_same_to_the_bit() -> None:
    layer = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(9, 4)), {nn.Linear}, dtype=torch.qint8)
    x = torch.randn(5, 9)
    assert torch.equal(quantized.emulated(layer)(x), layer(x))
    assert all(quantized.is_emulated(part) for part in layer[0].modules())
