"""Canaries: one for each private API of torch that is used, named after the entry that stands on it. Where a release of
torch moves one, this file fails first and says which entry of `deploypipe/torch_compat/` to mend."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploypipe.torch_compat import dispatch, symbols, tracing


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


def test_write_extremes_with_two_operands() -> None:
    symbols.write_extremes_with_two_operands()
    program = traced(lambda x: torch.zeros(torch.sym_max(x.shape[0], x.sum().to(torch.int64).item())), X)
    assert torch.sym_max in {node.target for node in program.graph.nodes}


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
