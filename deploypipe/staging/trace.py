"""Runs a module's rewritten code under `torch.export`: its control flow is in the program that comes out."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import math
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from deploypipe.compiler.sites import Site
from deploypipe.contract.signature import Axes
from deploypipe.eager import argument_names, check_axes
from deploypipe.errors import ExportError
from deploypipe.staging.arithmetic import bools_as_numbers
from deploypipe.staging.context import StagingContext, active, current
from deploypipe.staging.copies import containers_of, fingerprint, rewrite_forwards, working_copy
from deploypipe.staging.failures import explain, line_of_forward
from deploypipe.staging.outputs import own_outputs, tensors_only
from deploypipe.staging.rewriting import rewritten
from deploypipe.staging.same_tensor import refuse_stale
from deploypipe.staging.simplify import changed_in_place, simplify_program
from deploypipe.staging.watch import Watch
from deploypipe.torch_compat.dispatch import pytree
from deploypipe.torch_compat.symbols import sizes_stay_open, write_extremes_with_two_operands
from deploypipe.torch_compat.tracing import no_overlap_question, tracer

PLAIN = builtins.max, builtins.min, math.pow


@dataclass(frozen=True)
class StaticProgram:
    """A module's program, and what became of its control flow."""

    program: ExportedProgram
    sites: tuple[Site, ...]
    rewritten: Mapping[str, str]
    was_training: bool


def trace(module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Axes | None = None) -> StaticProgram:
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
            f"{line_of_forward(module)}: {kept.kind.name.lower()} `{kept.target}` is changed during forward:"
            " the artifact has no memory between calls",
            "Return the new value, or compute it without changing the buffer.",
        )
    if changed:
        # Eager changes the caller's tensor in place; the artifact must not, so it works on copies.
        program, context = _export(module, example_inputs, dynamic, own_inputs=True)
    found = tuple(
        dataclasses.replace(site, became=", ".join(forms))
        for site, forms in sorted(context.became.items(), key=lambda item: _in_order(item[0]))
    )
    return StaticProgram(program, found, dict(context.rewritten), module.training)


def _in_order(site: Site) -> tuple[str, int, int]:
    return site.file, site.line, site.number


def _export(
    module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Axes, *, own_inputs: bool
) -> tuple[ExportedProgram, StagingContext]:
    copy = working_copy(module)
    rewrite_forwards(copy)
    before = fingerprint(copy)
    names = argument_names(module, example_inputs)
    check_axes(dynamic, dict(zip(names, example_inputs, strict=True)), type(module).__name__)
    inputs, shapes = _open_axes(example_inputs, names, dynamic)
    root = _Root(copy, names, own_inputs)
    context = StagingContext(capturing=True, resolver=rewritten, owned=containers_of(copy))
    try:
        with (
            active(context),
            torch.no_grad(),
            sizes_stay_open(),
            no_overlap_question(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            write_extremes_with_two_operands()
            program = torch.export.export(root, inputs, dynamic_shapes=shapes, strict=False)
    except ExportError:
        raise
    except Exception as error:
        raise explain(error, module) from error
    after = fingerprint(copy)
    if after != before:
        name = next(k for k in {**before, **after} if before.get(k) != after.get(k))
        raise ExportError(
            f"{line_of_forward(module)}: attribute `{name}` is changed during forward:"
            " the artifact has no memory between calls",
            "Return the value, or keep it in a local variable.",
        )
    _check_open(program, names, dynamic, module)
    simplify_program(program)
    return program, context


@contextlib.contextmanager
def plain_builtins() -> Iterator[None]:
    """`torch.export` replaces `max`, `min` and `math.pow` while it runs; rewritten code must not see that."""
    held = builtins.max, builtins.min, math.pow
    builtins.max, builtins.min, math.pow = PLAIN
    try:
        yield
    finally:
        builtins.max, builtins.min, math.pow = held


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
        current().tracer = tracer()
        if self.own_inputs_:
            args = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
        with plain_builtins(), bools_as_numbers():
            with Watch():
                outputs = tensors_only(model(*args))
            for leaf in pytree.tree_leaves(outputs):
                if isinstance(leaf, Tensor):
                    refuse_stale(leaf)
            return own_outputs(outputs, args)


def _with_names(run: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """A forward with the model's argument names, which become the program's input names."""
    scope: dict[str, Any] = {"run": run}
    joined = ", ".join(names)
    exec(f"def forward({joined}):\n    return run({joined})", scope)
    made = scope["forward"]
    assert isinstance(made, types.FunctionType)
    return made


PRIMES = (5, 7, 11, 13, 17, 19, 23, 29)


def _open_axes(inputs: tuple[Any, ...], names: list[str], dynamic: Axes) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
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
        axes = dynamic.get(name, {})
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


def _check_open(program: ExportedProgram, names: list[str], dynamic: Axes, module: nn.Module) -> None:
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    for name, node_name in zip(names, program.graph_signature.user_inputs, strict=False):
        for axis, symbol in dynamic.get(name, {}).items():
            value = placeholders[str(node_name)].meta["val"]
            if not isinstance(value.shape[axis], torch.SymInt):
                raise ExportError(
                    f"{line_of_forward(module)}: axis {axis} (`{symbol}`) of input `{name}` was asked to be dynamic"
                    f" and came out as the constant {value.shape[axis]}",
                    "Look for a size that is used as a constant in forward.",
                )
