"""Capture: the dynamic eager module becomes one static program, once, from which every format is written."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from deploypipe.errors import ExportError, UsageError, first_line
from deploypipe.signature import Signature, TensorSpec, dtype_name, flatten, leaf_names

Axes = Mapping[str, Mapping[int, str]]
"""Which axes stay dynamic: argument name → axis → symbol name. Axes with one symbol have one size."""


@dataclass(frozen=True)
class Capture:
    module: nn.Module
    """The author's module: a copy of its own, in eval mode, on the CPU. The reference for parity."""
    example_inputs: tuple[Tensor, ...]
    program: ExportedProgram
    signature: Signature
    symbols: Mapping[str, str]
    """torch's symbol ("s77") → the author's name for it ("batch")."""


def capture(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    dynamic: Axes | None = None,
    output_names: tuple[str, ...] | None = None,
) -> Capture:
    """Capture `module`, which stays as it was. ExportError where it cannot; UsageError for bad arguments."""
    reference = reference_copy(module)
    dynamic = dynamic or {}
    names = argument_names(reference, example_inputs)
    if unknown := set(dynamic) - set(names):
        raise UsageError(f"{unknown.pop()!r} is no argument of {_title(module)}", f"Its arguments: {', '.join(names)}.")
    axes = {symbol: torch.export.Dim(symbol) for axes in dynamic.values() for symbol in axes.values()}
    shapes = tuple({axis: axes[symbol] for axis, symbol in dynamic.get(name, {}).items()} for name in names)
    try:
        program = torch.export.export(reference, example_inputs, dynamic_shapes=shapes)
    except Exception as cause:
        raise ExportError(
            f"{_title(module)} cannot be captured: {first_line(cause)}",
            "Control flow on tensor values is not exported yet; write it with torch.cond or torch.while_loop.",
        ) from cause
    symbols = _symbols(program, names, dynamic)
    signature = _signature(program, reference, example_inputs, names, symbols, output_names)
    return Capture(reference, example_inputs, program, signature, symbols)


def reference_copy(module: nn.Module) -> nn.Module:
    """A copy in eval mode on the CPU, so that nothing done with it reaches the caller's module."""
    try:
        return copy.deepcopy(module).cpu().eval()
    except Exception as cause:
        raise ExportError(
            f"{_title(module)} cannot be copied: {cause}", "Keep only modules, parameters and plain values in it."
        ) from cause


def argument_names(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """The names in `forward` of the arguments that `inputs` fill."""
    try:
        bound = inspect.signature(module.forward).bind(*inputs)
    except TypeError as cause:
        raise UsageError(f"the example inputs do not fit {_title(module)}.forward: {cause}") from cause
    names: list[str] = []
    for name, value in bound.arguments.items():
        kind = inspect.signature(module.forward).parameters[name].kind
        names += [f"{name}_{i}" for i in range(len(value))] if kind is inspect.Parameter.VAR_POSITIONAL else [name]
    return names


def _symbols(program: ExportedProgram, names: list[str], dynamic: Axes) -> dict[str, str]:
    placeholders = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    found: dict[str, str] = {}
    for name, placeholder in zip(names, program.graph_signature.user_inputs, strict=True):
        for axis, symbol in dynamic.get(name, {}).items():
            size = placeholders[str(placeholder)].shape[axis]
            if isinstance(size, int):
                raise ExportError(
                    f"axis {axis} of {name!r} was asked to stay dynamic, but the model fixes it at {size}",
                    "Take the axis out of `dynamic`, or find what in forward depends on that exact size.",
                )
            found[str(size)] = symbol
    return found


def _signature(
    program: ExportedProgram,
    reference: nn.Module,
    example_inputs: tuple[Tensor, ...],
    names: list[str],
    symbols: Mapping[str, str],
    output_names: tuple[str, ...] | None,
) -> Signature:
    with torch.no_grad():
        leaves, structure = flatten(reference(*copy.deepcopy(example_inputs)))
    output_names = output_names or tuple(leaf_names(structure))
    if len(output_names) != len(leaves):
        raise UsageError(f"{len(output_names)} output names were given for {len(leaves)} outputs")
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}

    def spec(name: str, value: Any) -> TensorSpec:
        if not isinstance(value, Tensor):  # a number: a 0-d tensor in the artifact
            return TensorSpec(name, dtype_name(torch.tensor(leaves[output_names.index(name)]).dtype), ())
        return TensorSpec(name, dtype_name(value.dtype), tuple(_axis(size, symbols) for size in value.shape))

    inputs, outputs = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    return Signature(
        tuple(spec(name, values[str(node)]) for name, node in zip(names, inputs, strict=True)),
        tuple(spec(name, values[str(node)]) for name, node in zip(output_names, outputs, strict=True)),
        structure,
    )


def _axis(size: int | torch.SymInt, symbols: Mapping[str, str]) -> int | str:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return str(expression.subs({symbol: symbols.get(str(symbol), str(symbol)) for symbol in expression.free_symbols}))


def _title(module: nn.Module) -> str:
    return type(module).__name__
