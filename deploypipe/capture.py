"""Capture: the dynamic eager module becomes one static program, once, from which every format is written."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from deploypipe.contract.call import CallForm
from deploypipe.contract.sidecar import ControlFlow
from deploypipe.contract.signature import Axes, Signature, TensorSpec, dtype_name
from deploypipe.contract.sizes import declared_limits
from deploypipe.contract.structure import Structure, leaf_names
from deploypipe.eager import (
    argument_names,
    check_axes,
    check_inputs,
    eager_outputs,
    input_names,
    reference_copy,
    title_of,
)
from deploypipe.errors import ExportError, UsageError, first_line
from deploypipe.explicit import explicit_call
from deploypipe.flat_module import Example, FlatCall, as_call, dynamic_by_name, flat_call
from deploypipe.original import check_copy, untouched
from deploypipe.staging.copies import fingerprint
from deploypipe.staging.growth import loops_at_most
from deploypipe.staging.outcomes import find_inputs, keeps_bound, missing_outcomes, record_outcomes
from deploypipe.staging.trace import StaticProgram, trace
from deploypipe.torch_compat.quantized import emulated
from deploypipe.torch_compat.scripted import Scripted, traceable
from deploypipe.torch_compat.symbols import rename_symbols


@dataclass(frozen=True)
class Capture:
    module: nn.Module
    """The author's module: a copy of its own, in eval mode, on the CPU. The reference for parity. Where the author's
    takes more than tensors, it is a `FlatModule` around it."""
    example_inputs: tuple[Tensor, ...]
    static: StaticProgram
    """The program, and what became of Python's control flow."""
    signature: Signature
    was_training: bool
    """Whether the author's module was in train mode."""
    symbols: Mapping[str, str]
    """torch's symbol ("s77") → the author's name for it ("batch")."""
    form: CallForm
    """Of the call that was captured."""

    @property
    def program(self) -> ExportedProgram:
        return self.static.program


def capture(
    module: nn.Module,
    example: Example,
    dynamic: Axes | None = None,
    output_names: Sequence[str] | None = None,
    *,
    random: str | None = None,
    state: str | None = None,
    bound: int | None = None,
) -> Capture:
    """Capture `module`, which stays as it was, in the call `example`: a tuple of arguments, a dict of keyword
    arguments, a tensor or a `Call`. With `random="input"` and `state="explicit"` what it draws and what it remembers
    are inputs (see `explicit`). `bound`: how often a loop runs at most that makes tensors or lists longer, where its
    code does not say it. ExportError where it cannot; UsageError for bad arguments."""
    was_training = getattr(module, "training", False)  # a frozen script module has no modes
    module, call, dynamic = explicit_call(module, as_call(example, "the example"), dynamic or {}, random, state)
    flat = flat_call(module, call)
    if bound is not None and bound < 1:
        raise UsageError(f"a bound of {bound} is none", "Say how often a loop runs at most: 1 or more.")
    with untouched(flat.module), loops_at_most(bound):
        return _capture(flat, dynamic, output_names, was_training)


def _capture(flat: FlatCall, dynamic: Axes, output_names: Sequence[str] | None, was_training: bool) -> Capture:
    example_inputs = check_inputs(flat.inputs, "the example")
    check_copy(flat.module, example_inputs)
    reference = reference_copy(flat.module)
    names = input_names(reference, example_inputs)
    dynamic = dynamic_by_name(dynamic, flat.form.paths(), names)
    check_axes(dynamic, dict(zip(names, example_inputs, strict=True)), title_of(reference))
    before = fingerprint(reference)
    leaves, structure = eager_outputs(reference, example_inputs)
    # What a module keeps for the size that it has just seen would be taken for a constant.
    unused = reference if fingerprint(reference) == before else reference_copy(flat.module)
    output_names = _output_names(output_names, leaf_names(structure), names)
    if len(output_names) != len(leaves):
        raise UsageError(f"{len(output_names)} output names were given for {len(leaves)} outputs")
    if not leaves:
        raise ExportError(f"{title_of(reference)}.forward returns no tensor", "An artifact computes tensors.")
    static = trace(
        _traceable(unused, example_inputs),
        example_inputs,
        dynamic_by_name(dynamic, names, argument_names(reference, example_inputs)),
    )
    symbols = dict(static.symbols)
    limits = tuple(dict.fromkeys([*declared_limits(dynamic), *static.limits]))
    form = None if flat.form == CallForm.of_names(names) else flat.form
    signature = replace(_signature(static.program, names, output_names, structure, symbols), limits=limits, call=form)
    return Capture(reference, example_inputs, static, signature, was_training, symbols, flat.form)


def _traceable(module: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    if not isinstance(module, Scripted):
        return emulated(module)
    try:
        return traceable(module, inputs)
    except Exception as cause:
        raise ExportError(
            f"{title_of(module)} is a script module that torch's converter does not carry: {first_line(cause)}",
            "Give the nn.Module that it was scripted from, with these weights: load_state_dict(scripted.state_dict()).",
        ) from cause


def within_bound(captured: Capture, inputs: tuple[Tensor, ...]) -> bool:
    """Whether no loop runs more often on these inputs than the user has said that it does."""
    return keeps_bound(captured.module, captured.static, inputs)


def cover_outcomes(
    captured: Capture, given: Sequence[tuple[Tensor, ...]]
) -> tuple[list[tuple[Tensor, ...]], tuple[ControlFlow, ...]]:
    """More inputs, searched for where the given ones leave a branch outcome untaken; and for every place where the
    model's Python code decides, which outcomes all of them take."""
    static, module = captured.static, captured.module
    if not static.sites:
        return [], ()
    taken = record_outcomes(module, static, given)
    searched = find_inputs(module, static, captured.example_inputs, taken)
    found = [
        inputs for inputs in searched if _returns_the_same_kind(captured, inputs) and within_bound(captured, inputs)
    ]
    if found:
        taken = record_outcomes(module, static, [*given, *found])
    missing = missing_outcomes(taken)
    return found, tuple(
        ControlFlow(
            _shown(site.file),
            site.line,
            site.function,
            site.kind,
            site.became,
            tuple(sorted(taken[site])),
            tuple(sorted(missing.get(site, ()))),
        )
        for site in static.sites
    )


def _returns_the_same_kind(captured: Capture, inputs: tuple[Tensor, ...]) -> bool:
    """Whether eager returns the kind of thing that it returns for the example. Some models return another for inputs
    that nobody gives them (0 instead of a tensor for an empty sum): no artifact can, so that outcome stays unproven."""
    leaves, structure = eager_outputs(captured.module, inputs)
    kinds = [(dtype_name(leaf.dtype), leaf.dim()) for leaf in leaves]
    expected = [(spec.dtype, len(spec.shape)) for spec in captured.signature.outputs]
    return structure == captured.signature.structure and kinds == expected


def _shown(file: str) -> str:
    """Relative to where we are; of a file elsewhere the name, since its folder is this machine's business."""
    path = Path(file)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path.name


def _output_names(given: Sequence[str] | None, own: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """A name for each output that no input and no other output has: formats refuse, or mix up, names that clash."""
    if given is not None:
        if len({*given, *inputs}) != len(given) + len(inputs):
            raise UsageError(f"output names must differ from each other and from the inputs': {', '.join(given)}")
        return list(given)
    taken, names = set(inputs), []
    for name in own:
        while name in taken:
            name += "_out"
        taken.add(name)
        names.append(name)
    return names


def _signature(
    program: ExportedProgram,
    names: Sequence[str],
    output_names: Sequence[str],
    structure: Structure,
    symbols: Mapping[str, str],
) -> Signature:
    values = _values(program)

    def spec(name: str, node: Any) -> TensorSpec:
        value = values[str(node)]
        shape = (size if isinstance(size, int) else rename_symbols(str(size), symbols) for size in value.shape)
        return TensorSpec(name, dtype_name(value.dtype), tuple(shape))

    inputs, outputs = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    return Signature(
        tuple(spec(name, node) for name, node in zip(names, inputs, strict=True)),
        tuple(spec(name, node) for name, node in zip(output_names, outputs, strict=True)),
        structure,
    )


def _values(program: ExportedProgram) -> dict[str, Any]:
    return {node.name: node.meta.get("val") for node in program.graph.nodes}
