"""A module that takes tensors in nested arguments, among constants, as one that takes the tensors alone.

Capture, probes, the gate, formats and servers know only such modules; `flat_call` makes one from the call that the
author's module takes.
"""

import inspect
import keyword
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from deploypipe.contract.call import EMPTY, KINDS, Call, CallForm, Parameter
from deploypipe.contract.signature import Axes
from deploypipe.contract.structure import Structure, constant, path_to, unflatten
from deploypipe.errors import UsageError
from deploypipe.torch_compat.around import Around
from deploypipe.torch_compat.nodes import object_of, open_node
from deploypipe.torch_compat.wrappers import unwrapped

ACCEPTED = (
    "tensors, None, numbers, strings, and lists, tuples, dicts, dataclasses, NamedTuples and registered pytree nodes"
)
_KIND_NAMES = {kind: name for name, kind in KINDS.items()}

Rebuild = Callable[[Iterator[Tensor]], Any]
"""A value again, from the tensors that it takes of an iterator."""


class FlatModule(Around):
    """Calls its author's module with nested arguments that are made from flat tensors."""

    form: CallForm
    rebuild: Callable[[Iterator[Tensor]], Call]

    def __init__(self, author: nn.Module, form: CallForm, rebuild: Callable[[Iterator[Tensor]], Call]) -> None:
        super().__init__(author)
        object.__setattr__(self, "form", form)
        object.__setattr__(self, "rebuild", rebuild)

    def forward(self, *tensors: Tensor) -> Any:
        call = self.rebuild(iter(tensors))
        return self.author(*call.args, **call.kwargs)

    def identifiers(self) -> list[str]:
        """The names of the inputs where only identifiers are allowed: `images_0` for `images[0]`."""
        found: list[str] = []
        for path in self.form.paths():
            name = re.sub(r"\W+", "_", path).strip("_")
            name = f"input_{name}" if not name.isidentifier() or keyword.iskeyword(name) else name
            while name in found:
                name += "_"
            found.append(name)
        return found


@dataclass(frozen=True)
class FlatCall:
    """A module that takes flat tensors, the tensors of one call, and the form of that call."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    form: CallForm


Example = Call | Tensor | Sequence[Any] | Mapping[str, Any]
"""A call as its user writes it: a tensor, a tuple of arguments, a dict of keyword arguments, or a `Call`."""


def as_call(arguments: Any, what: str) -> Call:
    """A tensor, a tuple of positional arguments, a dict of keyword arguments, or a Call, as a Call."""
    if isinstance(arguments, Call):
        return arguments
    if isinstance(arguments, Tensor):
        return Call(arguments)
    if isinstance(arguments, tuple | list):
        return Call(*arguments)
    if isinstance(arguments, Mapping) and all(isinstance(key, str) for key in arguments):
        return Call(**arguments)
    raise UsageError(
        f"{what} must be a tuple of arguments, a dict of keyword arguments or a Call, not a {type(arguments).__name__}",
        "One input x is (x,).",
    )


def flat_call(module: nn.Module, call: Call, what: str = "the example") -> FlatCall:
    """The module, and what it takes, for a call of it. A module that takes tensors alone, by position, stays as it is.
    UsageError for a call that does not fit `forward`."""
    module = unwrapped(module)
    signature = inspect.signature(module.forward)
    try:
        bound = signature.bind(*call.args, **call.kwargs)
    except TypeError as cause:
        raise UsageError(f"{what} does not fit {type(module).__name__}.forward: {cause}") from cause
    flat = {name: _flattened(value, name, what) for name, value in bound.arguments.items()}
    form = CallForm(tuple(_parameter(each, flat) for each in signature.parameters.values()))
    inputs = tuple(tensor for tensors, _, _ in flat.values() for tensor in tensors)
    if not inputs:
        raise UsageError(f"{what} holds no tensor", "A number n that varies from call to call is torch.tensor(n).")
    if not bound.kwargs and all(isinstance(value, Tensor) for value in bound.args):
        return FlatCall(module, inputs, form)

    rebuilds = {name: value_of for name, (_, _, value_of) in flat.items()}

    def rebuild(tensors: Iterator[Tensor]) -> Call:
        arguments = {name: value_of(tensors) for name, value_of in rebuilds.items()}
        made = inspect.BoundArguments(signature, arguments)
        return Call(*made.args, **made.kwargs)

    return FlatCall(FlatModule(module, form, rebuild), inputs, form)


def tensors_of_call(call: Call, form: CallForm, what: str) -> list[Tensor]:
    """The tensors of a call. UsageError for one that is not of this form."""
    try:
        return form.tensors(call.args, call.kwargs, open_node)
    except TypeError as cause:
        raise UsageError(f"{what} does not fit the call that was captured: {cause}") from cause


def module_of_form(module: nn.Module, form: CallForm) -> nn.Module:
    """The module as one that takes the tensors of calls of this form. UsageError where an object among its arguments
    cannot be made here."""
    module = unwrapped(module)

    def rebuild(tensors: Iterator[Tensor]) -> Call:
        remaining = list(tensors)
        arguments = {}
        for each in form.parameters:
            count = len(each.paths())
            taken, remaining = remaining[:count], remaining[count:]
            if count or each.structure not in (each.default, EMPTY.get(each.kind)):
                arguments[each.name] = unflatten(taken, each.structure, object_of)
        made = inspect.BoundArguments(form.signature(), arguments)
        return Call(*made.args, **made.kwargs)

    return FlatModule(module, form, rebuild)


def _flattened(value: Any, path: str, what: str) -> tuple[list[Tensor], Structure, Rebuild]:
    """The tensors of an argument, how it nests, and how it is made again."""
    if isinstance(value, Tensor):
        return [value], None, next
    kept = constant(value)
    if kept is not None:
        return [], kept, lambda tensors: value
    container = open_node(value)
    if container is None:
        raise UsageError(
            f"{what} holds a {type(value).__name__} as `{path}`: a call may hold {ACCEPTED} of them",
            "Register its class with torch.export.register_dataclass or torch.utils._pytree.register_pytree_node.",
        )
    parts = [
        _flattened(item, path_to(path, key), what) for key, item in zip(container.keys, container.items, strict=True)
    ]
    rebuilds, make = [part[2] for part in parts], container.rebuild
    return (
        [tensor for tensors, _, _ in parts for tensor in tensors],
        container.structure([structure for _, structure, _ in parts]),
        lambda tensors: make([rebuild(tensors) for rebuild in rebuilds]),
    )


def _parameter(parameter: inspect.Parameter, flat: Mapping[str, tuple[Any, Structure, Any]]) -> Parameter:
    kind, default = _KIND_NAMES[parameter.kind], None
    if parameter.default is not inspect.Parameter.empty:
        default = _default(parameter.default)
    given = flat.get(parameter.name)
    return Parameter(parameter.name, kind, given[1] if given else EMPTY.get(kind, default), default)


def _default(value: Any) -> Structure:
    """What is left out, as a constant: a default that is none is known by its class alone."""
    try:
        tensors, structure, _ = _flattened(value, "", "")
    except UsageError:
        return {"other": f"a {type(value).__name__}"}
    return {"other": "a tensor"} if tensors else structure


def dynamic_by_name(dynamic: Axes, given: Iterable[str], wanted: Iterable[str]) -> Axes:
    """Dynamic axes under other names of the same inputs."""
    names = dict(zip(given, wanted, strict=True))
    return {names.get(name, name): axes for name, axes in dynamic.items()}
