"""Which of an endpoint's tensors each of a module's is: by name where the names are the same, else by place."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploypipe.contract.signature import TensorSpec
from deploypipe.endpoints.endpoint import Endpoint
from deploypipe.errors import UsageError


@dataclass(frozen=True)
class Fit:
    """The module's inputs as the endpoint takes them."""

    inputs: tuple[TensorSpec, ...]
    """In the module's order and by its names. Axes that are free at one place of the shape and have one size in the
    example are one symbol, so that a batch is one for all inputs."""
    names: tuple[str, ...]
    """What the endpoint calls each of them."""
    limits: tuple[str, ...] = ()
    """What must hold of the sizes."""

    @property
    def renamed(self) -> str:
        """ "x is INPUT__0", for each that is called otherwise."""
        pairs = zip((spec.name for spec in self.inputs), self.names, strict=True)
        return ", ".join(f"{own} is its {theirs}" for own, theirs in pairs if own != theirs)


def fitted(endpoint: Endpoint, example: Sequence[TensorSpec]) -> Fit:
    """`example`: names, dtypes and sizes of the module's inputs. UsageError where the endpoint
    takes others."""
    declared = _in_order(endpoint, example)
    symbols: dict[tuple[int, int], str] = {}
    inputs = []
    for own, theirs in zip(example, declared, strict=True):
        problem = _problem(own, theirs)
        if problem:
            raise UsageError(
                f"{endpoint.name!r} at {endpoint.url} takes {theirs}, the example gives {own}: {problem}",
                "Give the example of the model that is served there.",
            )
        shape: list[int | str] = []
        for axis, (size, declared_size) in enumerate(zip(own.shape, theirs.shape, strict=True)):
            if isinstance(declared_size, str):
                key = (axis, int(size))
                shape.append(symbols.setdefault(key, "batch" if axis == 0 and not symbols else f"n{len(symbols)}"))
            else:
                shape.append(declared_size)
        inputs.append(TensorSpec(own.name, own.dtype, tuple(shape)))
    limits: tuple[str, ...] = ()
    if endpoint.largest_batch and "batch" in symbols.values():
        limits = (f"batch <= {endpoint.largest_batch}",)
    return Fit(tuple(inputs), tuple(spec.name for spec in declared), limits)


def _in_order(endpoint: Endpoint, example: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The endpoint's inputs in the module's order. One that declares nothing takes what the example is."""
    declared = endpoint.inputs
    if not declared:
        free = endpoint.leading_axis_is_free
        return [
            TensorSpec(own.name, own.dtype, ("free", *own.shape[1:]) if free and own.shape else own.shape)
            for own in example
        ]
    if len(declared) != len(example):
        raise UsageError(
            f"{endpoint.name!r} at {endpoint.url} takes {len(declared)} inputs ({', '.join(map(str, declared))}), "
            f"the example gives {len(example)} ({', '.join(map(str, example))})",
            "Give the example of the model that is served there.",
        )
    by_name = {spec.name: spec for spec in declared}
    if set(by_name) == {own.name for own in example}:
        return [by_name[own.name] for own in example]
    return list(declared)


def _problem(own: TensorSpec, theirs: TensorSpec) -> str:
    if own.dtype != theirs.dtype:
        return f"another dtype, {own.dtype} instead of {theirs.dtype}"
    if len(own.shape) != len(theirs.shape):
        return f"{len(own.shape)} axes instead of {len(theirs.shape)}"
    for axis, (size, wanted) in enumerate(zip(own.shape, theirs.shape, strict=True)):
        if not isinstance(wanted, str) and size != wanted:
            return f"axis {axis} has {size} instead of {wanted}"
    return ""
