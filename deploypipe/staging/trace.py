"""Runs a module's rewritten code under `torch.export`: its control flow is in the program that comes out."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import math
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from deploypipe.compiler.sites import Site
from deploypipe.contract.signature import Axes
from deploypipe.eager import argument_names, check_axes, resized, title_of
from deploypipe.errors import ExportError
from deploypipe.explicit import STATE_REMEDY
from deploypipe.staging.arithmetic import bools_as_numbers
from deploypipe.staging.attributes import remembers, without_caches, written_between
from deploypipe.staging.context import StagingContext, active
from deploypipe.staging.copies import containers_of, fingerprint, rewrite_forwards, working_copy
from deploypipe.staging.effects import without_effects
from deploypipe.staging.failures import explain, line_of_forward
from deploypipe.staging.library_operators import without_library_operators
from deploypipe.staging.open_axes import OpenSymbols, check_open, open_axes, open_symbols
from deploypipe.staging.outputs import own_outputs, tensors_only
from deploypipe.staging.rewriting import rewritten
from deploypipe.staging.same_tensor import refuse_stale
from deploypipe.staging.selection import EVERYTHING, Attempts, Selection
from deploypipe.staging.simplify import changed_in_place, random_draw, simplify_program
from deploypipe.staging.size_limits import Limit, limits_of
from deploypipe.staging.watch import Watch
from deploypipe.torch_compat.around import share_tree
from deploypipe.torch_compat.dispatch import pytree
from deploypipe.torch_compat.guards import Guard, forget_guards, noting_guards
from deploypipe.torch_compat.recurrent import sequences_stay_open
from deploypipe.torch_compat.symbols import rebuild_all_expressions, sizes_stay_open, unwritable_number
from deploypipe.torch_compat.tracing import no_overlap_question, tracer

PLAIN = builtins.max, builtins.min, math.pow


@dataclass(frozen=True)
class StaticProgram:
    """A module's program, and what became of its control flow."""

    program: ExportedProgram
    sites: tuple[Site, ...]
    rewritten: Mapping[str, str]
    was_training: bool
    selection: Selection = EVERYTHING
    """The functions that were rewritten where they are called."""
    symbols: Mapping[str, str] = field(default_factory=dict)
    """torch's symbol ("s77") → the axis as the author writes it ("batch")."""
    limits: tuple[str, ...] = ()
    """What the program demands of the sizes of dynamic axes, beyond what the author said."""
    remarks: tuple[str, ...] = ()
    bounded: Mapping[Site, int] = field(default_factory=dict)
    """Loops that may run only as often as the user said."""


def trace(
    module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Axes | None = None, *, forget: bool = True
) -> StaticProgram:
    """Capture a module with control flow that depends on its inputs.

    `dynamic` names the axes that stay open, by argument name and axis. The module is captured in eval mode and left
    as it was. First it is traced as it is; where that stops, because Python asked for a value or a size that is not
    known yet, what the module keeps for sizes that it has seen is forgotten (`forget`), then the functions that asked
    are rewritten, and in the end all of them. Raises `ExportError`, naming the author's line, for what cannot be
    carried.
    """
    dynamic = dynamic or {}
    attempts = Attempts(module)
    limited: Traced | None = None
    native: ExportError | None = None
    while (selection := attempts.selection) is not None:
        stopped: ExportError | None = None
        questions: list[Limit] = []
        try:
            traced = _own_memory(module, example_inputs, dynamic, selection)
        except ExportError as error:
            stopped = error
        else:
            questions = [limit for limit in traced.limits if not limit.torchs_own]
            if not questions and not traced.pinned:
                return _program(module, traced)
        if forget and not selection and (emptied := without_caches(module, example_inputs, dynamic)) is not None:
            return trace(emptied, example_inputs, dynamic, forget=False)
        if stopped is not None:
            native = native or stopped
            attempts.stopped(stopped)
            continue
        if traced.pinned:
            native = native or _constant(traced.pinned, module)
        else:
            limited = limited or traced
        attempts.limited(questions)
    try:
        traced = _own_memory(module, example_inputs, dynamic, EVERYTHING)
        if traced.pinned:
            raise _constant(traced.pinned, module)
        return _program(module, limited if traced.limits and limited is not None else traced)
    except ExportError as error:
        if limited is not None:
            return _program(module, limited)
        if native is not None and attempts.library_stops(error):
            raise native from error
        raise


def _constant(pinned: Limit, module: nn.Module) -> ExportError:
    return ExportError(
        f"{pinned.where or line_of_forward(module)}: an axis that was asked to be dynamic came out as a constant:"
        f" the program holds for `{pinned.text}` only",
        "Look for a size that is used as a constant there.",
    )


def _own_memory(module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Axes, selection: Selection) -> Traced:
    """One attempt. Eager changes the caller's tensor in place; the artifact must not, so it works on copies."""
    traced = _export(module, example_inputs, dynamic, selection, own_inputs=False)
    number = unwritable_number(traced.program)
    if number is not None:
        raise ExportError(
            f"{line_of_forward(module)}: no format has a place for `{number}` of a number that is computed"
        )
    drawn = random_draw(traced.program)
    if drawn is not None:
        raise ExportError(
            f"{line_of_forward(module)}: torch.{drawn} draws random numbers in a branch or a loop that depends on the"
            " input, or inside of a function of torch",
            "Draw before the branch or the loop, or pass what is drawn in as an input of forward.",
        )
    changed = changed_in_place(traced.program)
    kept = next((spec for spec in changed if spec.kind is not InputKind.USER_INPUT), None)
    if kept is not None:
        raise ExportError(
            f"{line_of_forward(module)}: {kept.kind.name.lower()} `{kept.target}` is changed during forward:"
            " the artifact has no memory between calls",
            STATE_REMEDY,
        )
    return _export(module, example_inputs, dynamic, selection, own_inputs=True) if changed else traced


def _program(module: nn.Module, traced: Traced) -> StaticProgram:
    context = traced.context
    found = tuple(
        dataclasses.replace(site, became=", ".join(forms))
        for site, forms in sorted(context.became.items(), key=lambda item: _in_order(item[0]))
    )
    without_library_operators(traced.program)
    simplify_program(traced.program)
    return StaticProgram(
        traced.program,
        found,
        dict(context.rewritten),
        module.training,
        context.selection,
        traced.symbols,
        tuple(limit.text for limit in traced.limits),
        (*traced.remarks, *(f"{site.where}: this loop may run {most} times" for site, most in context.bounded.items())),
        dict(context.bounded),
    )


@dataclass(frozen=True)
class Traced:
    """What one attempt came to."""

    program: ExportedProgram
    context: StagingContext
    symbols: Mapping[str, str]
    limits: Sequence[Limit]
    remarks: Sequence[str]

    @property
    def pinned(self) -> Limit | None:
        """A limit that leaves one size of an axis."""
        return next((limit for limit in self.limits if limit.pins), None)


def _in_order(site: Site) -> tuple[str, int, int]:
    return site.file, site.line, site.number


def _export(
    module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Axes, selection: Selection, *, own_inputs: bool
) -> Traced:
    copy = working_copy(module)
    rewrite_forwards(copy)
    before = fingerprint(copy)
    names = argument_names(module, example_inputs)
    check_axes(dynamic, dict(zip(names, example_inputs, strict=True)), title_of(module))
    inputs, shapes = open_axes(example_inputs, names, dynamic, selection)
    context = StagingContext(capturing=True, resolver=rewritten, selection=selection, owned=containers_of(copy))
    root = _Root(copy, names, own_inputs, open_symbols(names, dynamic), context)
    guards: list[Guard] = []
    try:
        with (
            active(context),
            torch.no_grad(),
            sizes_stay_open(),
            no_overlap_question(),
            sequences_stay_open(),
            noting_guards(guards),
            without_effects(context),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            rebuild_all_expressions()
            program = torch.export.export(root, inputs, dynamic_shapes=shapes, strict=False)
    except ExportError:
        raise
    except Exception as error:
        raise explain(error, module) from error
    remarks = _attributes(before, fingerprint(copy), module, example_inputs, dynamic, context.written)
    if selection is EVERYTHING:
        check_open(program, names, dynamic, line_of_forward(module))
    limits = limits_of(guards, context.axes)
    shown = {symbol: axis.shown for symbol, axis in context.axes.items()}
    forget_guards(program, list(context.axes))
    if selection is not EVERYTHING:
        excluded = {limit.excludes_one for limit in limits} - {""}
        held = {symbol for symbol in excluded if _holds_at_one(symbol, program, module, example_inputs, dynamic)}
        limits = [limit for limit in limits if limit.excludes_one not in held]
    return Traced(program, context, shown, limits, [*context.dropped, *remarks])


def _holds_at_one(
    symbol: str, program: ExportedProgram, module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Axes
) -> bool:
    """Whether a program that is said to hold for larger values of `symbol` only gives at 1 what eager gives. Library
    code asks so to skip work that changes nothing. The gate compares at size 1 on more inputs."""
    inputs = resized(example_inputs, argument_names(module, example_inputs), dynamic, {symbol: 1})
    try:
        with torch.no_grad():
            expected = tensors_only(working_copy(module)(*(t.clone() for t in inputs)))
            found = program.module()(*inputs)
            pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(found), strict=True)
            return all(a.shape == b.shape and torch.allclose(a, b, 1e-3, 1e-4, True) for a, b in pairs)
    except Exception:
        return False


def _attributes(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    dynamic: Axes,
    places: Mapping[str, str],
) -> list[str]:
    """A remark for each attribute that forward writes and that is no memory of earlier calls; ExportError for one that
    may be."""
    written = sorted(written_between(before, after))
    if written and remembers(module, example_inputs, dynamic):
        where = places.get(written[0].rpartition(".")[2], line_of_forward(module))
        raise ExportError(
            f"{where}: attribute `{written[0]}` is changed during forward: the artifact has no memory between calls",
            STATE_REMEDY,
        )
    return [f"attribute `{name}` is written during forward: the artifact returns its outputs alone" for name in written]


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

    def __init__(
        self, model: nn.Module, names: list[str], own_inputs: bool, axes: OpenSymbols, context: StagingContext
    ) -> None:
        super().__init__()
        share_tree(self, model)  # so that parameters keep their names
        object.__setattr__(self, "model_", model)
        object.__setattr__(self, "own_inputs_", own_inputs)
        object.__setattr__(self, "open_", axes)
        object.__setattr__(self, "context_", context)
        object.__setattr__(self, "forward", _with_names(self.run, names))
        self.training = False

    def run(self, *args: Any) -> Any:
        model: Any = self.model_
        context: Any = self.context_
        axes: Any = self.open_
        context.tracer = tracer()
        context.axes.update(axes.bind(args))
        if self.own_inputs_:
            args = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
        rewriting = context.selection != frozenset()
        with plain_builtins() if rewriting else contextlib.nullcontext(), bools_as_numbers():
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
