"""The verb of this package: a module and example inputs in, a program with its control flow in the graph out."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import inspect
import math
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental import _config as symbolic_config
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils import _pytree as pytree

from deploypipe.compiler import sites
from deploypipe.compiler.factory import REWRITTEN_CODES
from deploypipe.compiler.sites import Site
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.errors import ExportError
from deploypipe.staging.aliases import Watch, refuse_stale
from deploypipe.staging.arithmetic import bools_as_numbers
from deploypipe.staging.context import Context, DeliberateRaise, active, current
from deploypipe.staging.copies import containers_of, fingerprint, rewrite_forwards, working_copy
from deploypipe.staging.lists import CountingList, GrowingList
from deploypipe.staging.packing import number_tensor
from deploypipe.staging.sequences import Sequence
from deploypipe.staging.simplify import changed_in_place, tidy
from deploypipe.staging.templates import NUMBER_DTYPES, children, number_kind
from deploypipe.staging.undefined import Undefined

PLAIN = builtins.max, builtins.min, math.pow
Dynamic = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class StaticProgram:
    """A module's program, and what became of its control flow."""

    program: ExportedProgram
    sites: tuple[Site, ...]
    rewritten: Mapping[str, str]
    was_training: bool


def trace(module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Dynamic | None = None) -> StaticProgram:
    """Capture a module with control flow that depends on its inputs.

    `dynamic` names the axes that stay open, by argument name and axis. The module is captured in eval mode and left
    as it was. Raises `ExportError`, naming the author's line, for what cannot be carried.
    """
    dynamic = dynamic or {}
    program, context = _export(module, example_inputs, dynamic, own_inputs=False)
    changed = changed_in_place(program)
    kept = next((spec for spec in changed if spec.kind is not InputKind.USER_INPUT), None)
    if kept is not None:
        raise ExportError(
            f"{_where(module)}: {kept.kind.name.lower()} `{kept.target}` is changed during forward:"
            " the artifact has no memory between calls",
            "Return the new value, or compute it without changing the buffer.",
        )
    if changed:
        # Eager changes the caller's tensor in place; the artifact must not, so it works on copies.
        program, context = _export(module, example_inputs, dynamic, own_inputs=True)
    found = tuple(
        dataclasses.replace(sites.KNOWN[number], became=", ".join(forms))
        for number, forms in sorted(context.became.items())
    )
    return StaticProgram(program, found, dict(context.rewritten), module.training)


def _export(
    module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Dynamic, *, own_inputs: bool
) -> tuple[ExportedProgram, Context]:
    copy = working_copy(module)
    rewrite_forwards(copy)
    before = fingerprint(copy)
    names = _argument_names(module, len(example_inputs))
    _check_axes(dynamic, names, example_inputs, module)
    inputs, shapes = _open_axes(example_inputs, names, dynamic)
    root = _Root(copy, names, own_inputs)
    context = Context(capturing=True, owned=containers_of(copy))
    try:
        with (
            active(context),
            torch.no_grad(),
            # Size 1 must not be taken for a constant, nor sizes above 1 taken for granted.
            symbolic_config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
            warnings.catch_warnings(),
            contextlib.ExitStack() as stack,
        ):
            warnings.simplefilter("ignore")
            two_operand_extremes()
            stack.enter_context(no_overlap_question())
            program = torch.export.export(root, inputs, dynamic_shapes=shapes, strict=False)
    except ExportError:
        raise
    except Exception as error:
        raise _explain(error, module) from error
    after = fingerprint(copy)
    if after != before:
        name = next(k for k in {**before, **after} if before.get(k) != after.get(k))
        raise ExportError(
            f"{_where(module)}: attribute `{name}` is changed during forward: the artifact has no memory between calls",
            "Return the value, or keep it in a local variable.",
        )
    _check_open(program, names, dynamic, module)
    tidy(program)
    return program, context


def two_operand_extremes() -> None:
    """Let the tracer rebuild `Max`/`Min` of sizes with the two-operand functions, the only ones a program may hold."""
    from sympy import Expr  # type: ignore[import-untyped]
    from torch.fx.experimental.proxy_tensor import _sympy_handlers
    from torch.utils._sympy.functions import Max, Min

    handlers: dict[type[Expr], Callable[..., Any]] = _sympy_handlers()
    handlers[Max], handlers[Min] = torch.sym_max, torch.sym_min


@contextlib.contextmanager
def plain_builtins() -> Iterator[None]:
    """`torch.export` replaces `max`, `min` and `math.pow` while it runs; rewritten code must not see that."""
    held = builtins.max, builtins.min, math.pow
    builtins.max, builtins.min, math.pow = PLAIN
    try:
        yield
    finally:
        builtins.max, builtins.min, math.pow = held


@contextlib.contextmanager
def no_overlap_question() -> Iterator[None]:
    """`copy_` asks whether its target overlaps itself, and the answer would exclude size 1 for nothing."""
    original = torch._debug_has_internal_overlap
    torch._debug_has_internal_overlap = lambda input: 0
    try:
        yield
    finally:
        torch._debug_has_internal_overlap = original


class _Root(nn.Module):
    """Calls the model and turns its outputs into tensors. Its one child is the model, under an empty prefix."""

    def __init__(self, model: nn.Module, names: list[str], own_inputs: bool) -> None:
        super().__init__()
        # The model's own tree, so that parameters keep their names.
        for key in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            object.__setattr__(self, key, getattr(model, key))
        object.__setattr__(self, "model_", model)
        object.__setattr__(self, "own_inputs_", own_inputs)
        object.__setattr__(self, "forward", _with_names(self.run, names))
        self.training = False

    def run(self, *args: Any) -> Any:
        model: Any = self.model_
        mode = get_proxy_mode()
        current().tracer = mode.tracer if mode is not None and hasattr(mode.tracer, "module_stack") else None
        if self.own_inputs_:
            args = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
        with plain_builtins(), bools_as_numbers():
            with Watch():
                outputs = tensors_only(model(*args))
            for leaf in pytree.tree_leaves(outputs):
                if isinstance(leaf, Tensor):
                    refuse_stale(leaf)
            return own_outputs(outputs, args)


def own_outputs(outputs: Any, inputs: tuple[Any, ...]) -> Any:
    """Inputs that are handed back become copies: some formats rename an input that is also an output."""
    given = {id(t) for t in inputs if isinstance(t, Tensor)}
    return pytree.tree_map(lambda t: t.clone() if id(t) in given else t, outputs)


def _with_names(run: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """A forward with the model's argument names, which become the program's input names."""
    scope: dict[str, Any] = {"run": run}
    joined = ", ".join(names)
    exec(f"def forward({joined}):\n    return run({joined})", scope)
    made = scope["forward"]
    assert isinstance(made, types.FunctionType)
    return made


def tensors_only(value: Any) -> Any:
    """A model's outputs as tensors in plain containers: numbers become 0-dim tensors, dataclasses dicts."""
    if isinstance(value, Undefined):
        value.refuse()
    if isinstance(value, Tensor) or value is None or isinstance(value, str):
        return value
    kind = number_kind(value)
    if kind is not None:
        dtype = torch.get_default_dtype() if kind is float else NUMBER_DTYPES[kind]
        return number_tensor(value, dtype)
    if isinstance(value, (GrowingList, CountingList, Sequence)):
        raise Unsupported(
            "the output", "it holds a list whose length depends on data", "stack or concatenate it before returning"
        )
    found = children(value)
    if found is None:
        raise Unsupported(
            "the output", f"it holds a {type(value).__name__}", "return tensors, numbers and containers of them"
        )
    parts = [tensors_only(p) for p in found[1]]
    if dataclasses.is_dataclass(value):
        return dict(zip(found[0][1], parts, strict=True))
    if isinstance(value, dict):
        return dict(zip(value, parts, strict=True))
    if isinstance(value, tuple):
        return tuple(parts)
    return parts


def _argument_names(module: nn.Module, count: int) -> list[str]:
    names: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(count - len(names))]
        elif parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    if len(names) < count:
        raise ExportError(f"{_where(module)}: forward takes {len(names)} arguments, the example has {count}")
    return names[:count]


def _check_axes(dynamic: Dynamic, names: list[str], inputs: tuple[Any, ...], module: nn.Module) -> None:
    for name, axes in dynamic.items():
        if name not in names:
            raise ExportError(
                f"{_where(module)}: there is no input `{name}` to have dynamic axes (inputs: {', '.join(names)})"
            )
        value = inputs[names.index(name)]
        for axis in axes:
            if not isinstance(value, Tensor) or not -value.dim() <= axis < value.dim():
                raise ExportError(f"{_where(module)}: input `{name}` has no axis {axis}")


PRIMES = (5, 7, 11, 13, 17, 19, 23, 29)


def _open_axes(inputs: tuple[Any, ...], names: list[str], dynamic: Dynamic) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Examples with a distinct size for each symbol, so that nothing is concluded from sizes that happen to agree."""
    symbols = list(dict.fromkeys(s for axes in dynamic.values() for s in axes.values()))
    dims = {s: Dim(s, min=0) for s in symbols}
    sizes = {s: PRIMES[i % len(PRIMES)] + 30 * (i // len(PRIMES)) for i, s in enumerate(symbols)}
    made: list[Any] = []
    shapes: list[Any] = []
    for name, value in zip(names, inputs, strict=True):
        if not isinstance(value, Tensor):
            made.append(value)
            shapes.append(None)
            continue
        axes = {axis % value.dim(): symbol for axis, symbol in dynamic.get(name, {}).items()}
        for axis, symbol in axes.items():
            old = value.shape[axis]
            index = torch.arange(sizes[symbol]) % old if old else torch.arange(0)
            value = (
                value.index_select(axis, index)
                if old
                else value.new_zeros([sizes[symbol] if i == axis else n for i, n in enumerate(value.shape)])
            )
        made.append(value.detach().clone())
        shapes.append({axis: dims[symbol] for axis, symbol in axes.items()} or None)
    return tuple(made), tuple(shapes)


def _check_open(program: ExportedProgram, names: list[str], dynamic: Dynamic, module: nn.Module) -> None:
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    for name, node_name in zip(names, program.graph_signature.user_inputs, strict=False):
        for axis, symbol in dynamic.get(name, {}).items():
            value = placeholders[str(node_name)].meta["val"]
            if not isinstance(value.shape[axis], torch.SymInt):
                raise ExportError(
                    f"{_where(module)}: axis {axis} (`{symbol}`) of input `{name}` was asked to be dynamic and came out"
                    f" as the constant {value.shape[axis]}",
                    "Look for a size that is used as a constant in forward.",
                )


def _where(module: nn.Module) -> str:
    code = getattr(type(module).forward, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else type(module).__name__


def _explain(error: BaseException, module: nn.Module) -> ExportError:
    """Any failure of capture as an `ExportError` at the author's line."""
    chain: list[BaseException] = []
    walk: BaseException | None = error
    while walk is not None and walk not in chain:
        chain.append(walk)
        walk = walk.__cause__ or walk.__context__
    where, line = _where(module), ""
    for link in chain:
        frames = [f for f, _ in traceback.walk_tb(link.__traceback__) if f.f_code in REWRITTEN_CODES]
        numbers = [n for f, n in traceback.walk_tb(link.__traceback__) if f.f_code in REWRITTEN_CODES]
        if frames:
            where = f"{frames[-1].f_code.co_filename}:{numbers[-1]}"
            line = _source_line(frames[-1].f_code.co_filename, numbers[-1])
            break
    refused = next((e for e in chain if isinstance(e, Unsupported)), None)
    if refused is not None:
        return ExportError(f"{refused.where or where}: {refused.construct}: {refused.why}", _sentence(refused.remedy))
    raised = next((e for e in chain if isinstance(e, DeliberateRaise)), None)
    if raised is not None:
        return ExportError(f"{where}: raise: every path raises {raised}", "Give inputs for which forward returns.")
    if any(isinstance(e, RecursionError) for e in chain):
        return ExportError(
            f"{where}: `{line}`: recursion: how deep it goes depends on values", "Write the recursion as a loop."
        )
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    kind = type(error).__name__
    remedy = "Write this step with torch operations, or report it with the line above."
    if kind in ("GuardOnDataDependentSymNode", "UserError") or "data-dependent" in text or "Constraint" in kind:
        remedy = "The step needs a constant where the model has a value that depends on the input."
    return ExportError(f"{where}: `{line}`: {kind}: {text}" if line else f"{where}: {kind}: {text}", remedy)


def _source_line(file: str, number: int) -> str:
    import linecache

    return linecache.getline(file, number).strip()


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
