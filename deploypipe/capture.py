"""Capture: the dynamic eager module becomes one static program, once, from which every format is written."""

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from deploypipe.deadline import deadline
from deploypipe.errors import ExportError, UsageError, first_line
from deploypipe.signature import Signature, Structure, TensorSpec, dtype_name, flatten, leaf_names

if TYPE_CHECKING:
    from deploypipe import dynamic_to_static

Axes = Mapping[str, Mapping[int, str]]
"""Which axes stay dynamic: argument name → axis → symbol name. Axes with one symbol have one size."""


@dataclass(frozen=True)
class Capture:
    module: nn.Module
    """The author's module: a copy of its own, in eval mode, on the CPU. The reference for parity."""
    example_inputs: tuple[Tensor, ...]
    static: "dynamic_to_static.Capture"
    """The program, and what became of Python's control flow."""
    signature: Signature
    was_training: bool
    """Whether the author's module was in train mode."""
    symbols: Mapping[str, str]
    """torch's symbol ("s77") → the author's name for it ("batch")."""

    @property
    def program(self) -> ExportedProgram:
        return self.static.program


def capture(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    dynamic: Axes | None = None,
    output_names: Sequence[str] | None = None,
) -> Capture:
    """Capture `module`, which stays as it was. ExportError where it cannot; UsageError for bad arguments."""
    from deploypipe import dynamic_to_static  # brings SymPy, which takes longer to import than all else here

    reference = reference_copy(module)
    example_inputs = check_inputs(example_inputs, "the example")
    dynamic = dynamic or {}
    names = argument_names(reference, example_inputs)
    _check_axes(dynamic, dict(zip(names, example_inputs, strict=True)), type(module).__name__)
    leaves, structure = eager_outputs(reference, example_inputs)
    output_names = _output_names(output_names, leaf_names(structure), names)
    if len(output_names) != len(leaves):
        raise UsageError(f"{len(output_names)} output names were given for {len(leaves)} outputs")
    static = dynamic_to_static.capture(reference, example_inputs, dynamic)
    symbols = _symbols(static.program, names, dynamic)
    signature = _signature(static.program, names, output_names, structure, symbols)
    return Capture(reference, example_inputs, static, signature, module.training, symbols)


def check_inputs(inputs: Any, what: str) -> tuple[Tensor, ...]:
    """The inputs as tensors of their own on the CPU, without gradients. UsageError for what is no tuple of tensors."""
    if isinstance(inputs, Tensor) or not isinstance(inputs, tuple | list):
        raise UsageError(f"{what} must be a tuple of tensors, not a {type(inputs).__name__}", "One input x is (x,).")
    for item in inputs:
        if not isinstance(item, Tensor):
            raise UsageError(f"{what} holds a {type(item).__name__}, not a tensor", "A number n is torch.tensor(n).")
    return tuple(tensor.detach().cpu().clone() for tensor in inputs)


def _check_axes(dynamic: Axes, inputs: Mapping[str, Tensor], title: str) -> None:
    sizes: dict[str, int] = {}
    for name, axes in dynamic.items():
        if name not in inputs:
            raise UsageError(f"{name!r} is no argument of {title}.forward", f"Its arguments: {', '.join(inputs)}.")
        if not isinstance(axes, Mapping):
            raise UsageError(f"the dynamic axes of {name!r} must be axis → symbol", 'Example: {"x": {0: "batch"}}.')
        for axis, symbol in axes.items():
            if not 0 <= axis < inputs[name].dim():
                raise UsageError(f"{name!r} has no axis {axis}: it has {inputs[name].dim()}")
            size = inputs[name].shape[axis]
            if sizes.setdefault(symbol, size) != size:
                raise UsageError(f"axes of sizes {sizes[symbol]} and {size} cannot both be {symbol!r}",
                                 "Give axes of different sizes symbols of their own.")  # fmt: skip


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


def reference_copy(module: nn.Module) -> nn.Module:
    """A copy in eval mode on the CPU, so that nothing done with it reaches the caller's module."""
    try:
        return copy.deepcopy(module).cpu().eval()
    except Exception as cause:
        raise ExportError(
            f"{type(module).__name__} cannot be copied: {first_line(cause)}",
            "Keep only modules, parameters and plain values in it.",
        ) from cause


def eager_outputs(
    reference: nn.Module, inputs: tuple[Tensor, ...], patience: float | None = None
) -> tuple[list[Tensor], Structure]:
    """What eager returns, flat, and its nesting. UsageError when eager itself fails on these inputs, or takes longer
    than `patience` seconds."""
    try:
        with torch.no_grad(), deadline(patience) if patience else nullcontext():
            # Inputs of its own: a forward that works in place must not change the caller's.
            outputs = reference(*(tensor.clone() for tensor in inputs))
    except Exception as cause:
        shapes = ", ".join(f"{dtype_name(tensor.dtype)}{list(tensor.shape)}" for tensor in inputs)
        raise UsageError(f"the eager model fails on inputs {shapes}: {first_line(cause)}") from cause
    try:
        return flatten(outputs)
    except TypeError as cause:
        raise ExportError(f"{type(reference).__name__}.forward: {cause}", "Return only those.") from cause


def argument_names(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """The names in `forward` of the arguments that `inputs` fill."""
    parameters = inspect.signature(module.forward).parameters
    try:
        bound = inspect.signature(module.forward).bind(*inputs)
    except TypeError as cause:
        raise UsageError(f"the example inputs do not fit {type(module).__name__}.forward: {cause}") from cause
    names: list[str] = []
    for name, value in bound.arguments.items():
        many = parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        names += [f"{name}_{i}" for i in range(len(value))] if many else [name]
    return names


def rename_symbols(expression: str, symbols: Mapping[str, str]) -> str:
    """ "s77 + 1" → "batch + 1"."""
    return re.sub(r"\b[su]\d+\b", lambda match: symbols.get(match.group(), match.group()), expression)


def _symbols(program: ExportedProgram, names: Sequence[str], dynamic: Axes) -> dict[str, str]:
    values = _values(program)
    found: dict[str, str] = {}
    for name, placeholder in zip(names, program.graph_signature.user_inputs, strict=True):
        for axis, symbol in dynamic.get(name, {}).items():
            found[str(values[str(placeholder)].shape[axis])] = symbol
    return found


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
