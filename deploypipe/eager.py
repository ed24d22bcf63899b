"""The eager side of everything: an untouched copy of the author's module, its inputs, and what it returns for them."""

import copy
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from deploypipe.contract.signature import Axes, dtype_name
from deploypipe.contract.sizes import broken_limits, parse_axis, symbol_value
from deploypipe.contract.structure import Structure, flatten
from deploypipe.errors import ExportError, UsageError, first_line
from deploypipe.flat_module import FlatModule
from deploypipe.torch_compat.around import Around
from deploypipe.torch_compat.dispatch import TorchDispatchMode
from deploypipe.torch_compat.nodes import open_node
from deploypipe.torch_compat.quantized import is_emulated
from deploypipe.torch_compat.wrappers import unwrapped


class Endless(RuntimeError):
    """A block ran longer than it was given."""


class _Watch(TorchDispatchMode):
    def __init__(self, seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = seconds
        self.end = time.thread_time() + seconds

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if time.thread_time() > self.end:
            raise Endless(f"no end after {self.seconds:g} s of processor time")
        return func(*args, **(kwargs or {}))


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """`Endless` at the first torch operator after `seconds` of this thread's processor time: a loop that never ends on
    some inputs must not hang whoever only tries them, and how busy the machine is must not decide what is tried."""
    with _Watch(seconds):
        yield


def check_inputs(inputs: Any, what: str) -> tuple[Tensor, ...]:
    """The inputs as tensors of their own on the CPU, without gradients. UsageError for what is no tuple of tensors."""
    if isinstance(inputs, Tensor) or not isinstance(inputs, tuple | list):
        raise UsageError(f"{what} must be a tuple of tensors, not a {type(inputs).__name__}", "One input x is (x,).")
    for item in inputs:
        if not isinstance(item, Tensor):
            raise UsageError(f"{what} holds a {type(item).__name__}, not a tensor", "A number n is torch.tensor(n).")
    return tuple(tensor.detach().cpu().clone() for tensor in inputs)


QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def _is_quantized(part: nn.Module) -> bool:
    return type(part).__module__.startswith(QUANTIZED) and not is_emulated(part)


def _computed_tensors(module: nn.Module) -> dict[int, Any]:
    """A copy of each tensor attribute that was computed from parameters, such as the weight of a weight norm: it has a
    history, and such tensors cannot be copied by `copy.deepcopy`."""
    values = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    return {id(value): value.detach().clone() for value in values if not value.is_leaf}


def reference_copy(module: nn.Module) -> nn.Module:
    """A copy in eval mode on the CPU, of what is inside of wrappers, so that nothing done with it reaches the caller's
    module."""
    module = unwrapped(module)
    rounded = next((name for name, part in module.named_modules() if _is_quantized(part)), None)
    if rounded is not None:
        raise ExportError(
            f"{title_of(module)} holds a module that PyTorch has quantized, `{rounded}`: no format carries its kernels",
            "Export the module of before, and round the artifact with `deploypipe quantize`.",
        )
    never_run = next((name for name, weight in module.named_parameters() if is_lazy(weight)), None)
    if never_run is not None:
        raise ExportError(
            f"{title_of(module)} has a parameter without a shape, `{never_run}`: its lazy layers have not run yet",
            "Run the module once first, on inputs like those that it is for.",
        )
    try:
        return copy.deepcopy(module, _computed_tensors(module)).cpu().eval()
    except Exception as cause:
        raise ExportError(
            f"{title_of(module)} cannot be copied: {first_line(cause)}",
            "Keep only modules, parameters and plain values in it.",
        ) from cause


def eager_outputs(
    reference: nn.Module, inputs: tuple[Tensor, ...], patience: float | None = None
) -> tuple[list[Tensor], Structure]:
    """What eager returns, flat, and its nesting. UsageError when eager itself fails on these inputs, or takes longer
    than `patience` seconds of processor time."""
    try:
        with torch.no_grad(), deadline(patience) if patience else nullcontext():
            # Inputs of its own: a forward that works in place must not change the caller's.
            outputs = reference(*(tensor.clone() for tensor in inputs))
    except Exception as cause:
        shapes = ", ".join(f"{dtype_name(tensor.dtype)}{list(tensor.shape)}" for tensor in inputs)
        raise UsageError(f"the eager model fails on inputs {shapes}: {first_line(cause)}") from cause
    try:
        return flat_tensors(outputs)
    except TypeError as cause:
        raise ExportError(f"{title_of(reference)}.forward: {cause}", "Return only those.") from cause


def flat_tensors(outputs: Any) -> tuple[list[Tensor], Structure]:
    """The tensors of a model's outputs in order, and how they nest; a number becomes a 0-d tensor. TypeError for what
    is neither."""
    leaves, structure = flatten(outputs, open_node)
    return [torch.as_tensor(leaf) for leaf in leaves], structure


def title_of(module: nn.Module) -> str:
    """The name of the author's class."""
    return type(author_of(module)).__name__


def author_of(module: nn.Module) -> nn.Module:
    """The module as its author wrote it, where it is called otherwise."""
    while isinstance(module, Around):
        module = module.author
    return module


def input_names(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """What the inputs are called: the arguments of `forward`, and places in them: `x`, `images[0]`."""
    return module.form.paths() if isinstance(module, FlatModule) else argument_names(module, inputs)


def argument_names(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """The names in `forward` of the arguments that `inputs` fill, as identifiers."""
    if isinstance(module, FlatModule):
        return module.identifiers()
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


def resized(inputs: tuple[Any, ...], names: Sequence[str], dynamic: Axes, values: Mapping[str, int]) -> tuple[Any, ...]:
    """The example with other values of some symbols."""
    made = []
    for name, tensor in zip(names, inputs, strict=True):
        for axis, written in dynamic.get(name, {}).items():
            size = parse_axis(written)
            if size.symbol in values:
                tensor = _resized(tensor, axis, values[size.symbol] * size.multiple)
        made.append(tensor)
    return tuple(made)


def _resized(value: Tensor, axis: int, size: int) -> Tensor:
    old = value.shape[axis]
    if old == size:
        return value
    if not old:
        return value.new_zeros([size if i == axis else n for i, n in enumerate(value.shape)])
    return value.index_select(axis, torch.arange(size) % old)


def check_axes(dynamic: Axes, inputs: Mapping[str, Tensor], title: str) -> None:
    """UsageError for dynamic axes that `inputs`, by their names in `forward`, do not have, or that contradict their
    sizes."""
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
            try:
                written = parse_axis(symbol)
            except ValueError as cause:
                raise UsageError(f"axis {axis} of {name!r}: {cause}") from cause
            bound = symbol_value(written.shown, size)
            if bound is None:
                raise UsageError(f"axis {axis} of {name!r} has size {size}, which is no multiple: {written.shown!r}")
            value = bound[1]
            if broken := broken_limits(written.limits, dict([bound])):
                raise UsageError(f"axis {axis} of {name!r} has size {size}, but it was declared with {broken[0]!r}")
            if sizes.setdefault(written.symbol, value) != value:
                raise UsageError(f"axes of sizes {sizes[written.symbol]} and {value} cannot both be {written.symbol!r}",
                                 "Give axes of different sizes symbols of their own.")  # fmt: skip
