"""Symbolic sizes and numbers, and the guards that torch collects about them while it traces.

A symbol stands for an axis of an input ("s77"), or for a number that is only known when the program runs: a whole
number ("u3") or a float ("zuf1"). Its shape environment holds what is known and demanded of all symbols of one trace.
"""

import contextlib
import operator
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from sympy import (  # type: ignore[import-untyped]
    Add,
    GreaterThan,
    LessThan,
    Not,
    Rel,
    StrictGreaterThan,
    StrictLessThan,
    Unequality,
)
from torch._export.serde.serialize import _SYM_OPS
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.fx.experimental import _config
from torch.fx.experimental.proxy_tensor import _sympy_handlers
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols, statically_known_true
from torch.utils._sympy.functions import Max, Min, PythonMod
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

__all__ = ["statically_known_true"]

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
INEQUALITIES = (StrictGreaterThan, StrictLessThan, GreaterThan, LessThan)

Symbol = Any
ShapeEnvironment = Any


def symbols_in(number: Any) -> set[Symbol]:
    """The symbols that a symbolic number is made of; none for any other value."""
    return set(number.node.expr.free_symbols) if isinstance(number, SYMBOLIC) else set()


def same_expression(a: Any, b: Any) -> bool:
    """Whether two symbolic numbers are one number for every input."""
    return bool(a.node.expr == b.node.expr)


def shape_environment_of(number: Any) -> ShapeEnvironment:
    return number.node.shape_env


def all_symbols(environment: ShapeEnvironment) -> frozenset[Symbol]:
    return frozenset(environment.var_to_range)


def rename_symbols(expression: str, names: Mapping[str, str]) -> str:
    """A size as torch writes it, with the author's names for its symbols: "s77 + 1" becomes "batch + 1"."""

    def renamed(match: re.Match[str]) -> str:
        name = names.get(match.group(), match.group())
        return f"({name})" if "*" in name and match.group() != expression else name

    return re.sub(r"\b[su]\d+\b", renamed, expression)


def is_unbacked(symbol: Symbol) -> bool:
    """Whether a symbol stands for a number that is only known when the program runs."""
    return str(symbol).startswith(("u", "zuf"))


def is_unbacked_float(symbol: Symbol) -> bool:
    return str(symbol).startswith("zuf")


def is_axis(symbol: Symbol) -> bool:
    """Whether a symbol stands for an axis of an input."""
    return str(symbol).startswith("s")


def depends_on_data(size: Any) -> bool:
    """Whether a size is not made of the inputs' axes alone."""
    return bool(free_unbacked_symbols(size))


def as_number(symbol: Symbol, environment: ShapeEnvironment) -> Any:
    """A symbol as the number that Python code computes with."""
    if is_unbacked_float(symbol):
        return environment.create_symfloatnode(symbol, hint=None)
    return environment.create_symintnode(symbol, hint=None)


def constant_of(number: Any) -> int | None:
    """The one value that a whole number has for every input; None where it has several."""
    return number if isinstance(number, int) else number.node.maybe_as_int()


def axis_against_constant(condition: torch.SymBool) -> tuple[Any, str, int] | None:
    """The axis, the operator ("<") and the number of a condition that compares an input's axis with a number."""
    relation, environment = condition.node.expr, condition.node.shape_env
    if environment is None or not isinstance(relation, Rel):
        return None
    if not (relation.lhs.is_Symbol and relation.rhs.is_Integer and is_axis(relation.lhs)):
        return None
    return as_number(relation.lhs, environment), str(relation.rel_op), int(relation.rhs)


@contextlib.contextmanager
def known_not_negative(number: Any) -> Iterator[None]:
    """Inside, torch knows that a number is not negative. It forgets so afterwards, else the program would check it."""
    symbol = number.node.expr if isinstance(number, torch.SymInt) else None
    environment = number.node.shape_env if isinstance(number, torch.SymInt) else None
    if symbol is None or environment is None or not symbol.is_Symbol:
        yield
        return
    before = environment.var_to_range[symbol]
    environment.var_to_range[symbol] = ValueRanges(0, int_oo)
    try:
        yield
    finally:
        environment.var_to_range[symbol] = before


@contextlib.contextmanager
def demands_stay_local(environment: ShapeEnvironment) -> Iterator[None]:
    """What a block's operations demand of sizes (`x[:, 1]` needs two columns) holds only where the block runs: a bound,
    or not being empty, is checked by the operation itself when it runs, so it is forgotten after the block."""
    count, ranges = len(environment.guards), dict(environment.var_to_range)
    asserts = {k: list(v) for k, v in environment.deferred_runtime_asserts.items()}
    number = environment.num_deferred_runtime_asserts
    try:
        yield
    finally:
        environment.guards[count:] = [g for g in environment.guards[count:] if not _is_demand(g.expr)]
        environment.var_to_range.update(ranges)
        environment.deferred_runtime_asserts.clear()
        environment.deferred_runtime_asserts.update(asserts)
        environment.num_deferred_runtime_asserts = number


def _is_demand(expression: Any) -> bool:
    return isinstance(expression, INEQUALITIES) or (isinstance(expression, Unequality) and expression.rhs == 0)


@contextlib.contextmanager
def no_inequalities_kept(environment: ShapeEnvironment) -> Iterator[None]:
    """Forget the inequalities that are asked inside. `torch.cond` compares the strides of its results, which are
    contiguous, and the answers would exclude size 1."""
    count = len(environment.guards)
    yield
    environment.guards[count:] = [g for g in environment.guards[count:] if not isinstance(g.expr, INEQUALITIES)]


@contextlib.contextmanager
def no_guards_kept(environment: ShapeEnvironment) -> Iterator[None]:
    """Forget every question about sizes that is asked inside."""
    count = len(environment.guards)
    yield
    del environment.guards[count:]


def sizes_stay_open() -> contextlib.AbstractContextManager[None]:
    """Inside, size 1 is not taken for a constant, nor are sizes above 1 taken for granted."""
    patched: contextlib.AbstractContextManager[None] = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    return patched


def rebuild_all_expressions() -> None:
    """Let the tracer rebuild numbers that it meets in another graph than the one that computed them. A program may hold
    `Max` and `Min` of two operands only; Python's `%` and `not` of a symbol are unknown to the tracer, or ask it for a
    value."""
    handlers: dict[Any, Any] = _sympy_handlers()
    handlers |= {Max: torch.sym_max, Min: torch.sym_min, PythonMod: operator.mod, Not: torch.sym_not}


def symbol_name(size: Any) -> str | None:
    """torch's name ("s77") for the size of an axis of an input; None for a constant or an expression."""
    expression = size.node.expr if isinstance(size, torch.SymInt) else None
    return str(expression) if expression is not None and expression.is_Symbol else None


def unwritable_number(program: ExportedProgram) -> str | None:
    """A function of numbers in the program that `torch.export.save` has no place for, such as `math.floor` of a
    float."""
    graphs = (part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule))
    known = {*_SYM_OPS, operator.getitem, torch.sym_sum}
    for node in (node for graph in graphs for node in graph.nodes if node.op == "call_function"):
        if not isinstance(node.target, OpOverload | HigherOrderOperator) and node.target not in known:
            return str(getattr(node.target, "__name__", node.target))
    return None


def sole_symbol(number: Any) -> Symbol | None:
    """The symbol that a symbolic whole number is; None for any other expression."""
    expression = number.node.expr if isinstance(number, torch.SymInt) else None
    return expression if expression is not None and expression.is_Symbol else None


def less_than(condition: torch.SymBool) -> Any:
    """An expression of whole numbers that is positive where `condition`, a comparison of whole numbers, holds. None for
    what is no such comparison."""
    relation = condition.node.expr
    if isinstance(relation, StrictLessThan | LessThan):
        return relation.rhs - relation.lhs + int(isinstance(relation, LessThan))
    if isinstance(relation, StrictGreaterThan | GreaterThan):
        return relation.lhs - relation.rhs + int(isinstance(relation, GreaterThan))
    return None


def linear_in(expression: Any, symbol: Symbol) -> tuple[Any, Any] | None:
    """A whole number c that is not 0, and an expression without the symbol, that make `c * symbol + rest`."""
    factor = expression.expand().coeff(symbol)
    rest = (expression - factor * symbol).expand()
    return (factor, rest) if factor.is_Integer and factor != 0 and symbol not in rest.free_symbols else None


def bound_of(number: Any, visible: frozenset[Symbol]) -> Any:
    """An upper bound of a whole number that is made of these symbols alone; None where there is none to be seen."""
    if isinstance(number, int):
        return number
    bound = _upper_bound(number.node.expr, visible)
    if bound is None:
        return None
    return int(bound) if bound.is_Integer else as_number(bound, shape_environment_of(number))


def _upper_bound(expression: Any, visible: frozenset[Symbol]) -> Any:
    if expression.free_symbols <= visible:
        return expression
    if isinstance(expression, Max | Min):
        bounds = [_upper_bound(each, visible) for each in expression.args]
        known = [bound for bound in bounds if bound is not None]
        whole = len(known) == len(bounds) or (known and isinstance(expression, Min))
        return expression.func(*known) if whole else None
    taken = next((term for term in Add.make_args(expression) if isinstance(-term, Max)), None)
    if taken is None:
        return None
    rest = expression - taken  # a - max(b, c) is min(a - b, a - c)
    return _upper_bound(Min(*(rest - each for each in (-taken).args)), visible)
