"""What a model takes and returns: names, dtypes and shapes. This module travels inside archives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .call import CallForm
from .sizes import broken_limits, symbol_value, writes_axis
from .structure import Structure, is_tensor_like

Axes = Mapping[str, Mapping[int, str]]
"""Which axes stay dynamic: argument name → axis → symbol name. Axes with one symbol have one size."""


class HasShape(Protocol):
    """A tensor of PyTorch, or an array of NumPy."""

    @property
    def dtype(self) -> Any: ...

    @property
    def shape(self) -> Any: ...


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. An axis is a size, or a symbol's name where it is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"

    def accepts(self, tensor: HasShape) -> bool:
        """Whether the dtype, the number of axes and the fixed sizes are those of this input or output."""
        sizes = tuple(tensor.shape)
        return (
            dtype_name(tensor.dtype) == self.dtype
            and len(sizes) == len(self.shape)
            and all(isinstance(axis, str) or axis == size for axis, size in zip(self.shape, sizes, strict=True))
        )


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model in order, how its outputs nest, and the call that its inputs are taken from."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    structure: Structure = None
    limits: tuple[str, ...] = ()
    """What must hold of the sizes of dynamic axes beside their being equal where a name occurs twice: "seq <= 64"."""
    call: CallForm | None = None
    """None where the inputs are the arguments, one by one."""

    @property
    def call_form(self) -> CallForm:
        return self.call or CallForm.of_names([spec.name for spec in self.inputs])

    def to_json(self) -> dict[str, Any]:
        # A bare machine trains without msgspec, and an archive is served without it.
        from .records import to_document

        document: dict[str, Any] = to_document(self)
        if self.call is None:
            document.pop("call", None)
        return document

    def problems(self, tensors: Sequence[HasShape]) -> list[str]:
        """Why `tensors` are no inputs, a line each."""
        found = mismatches(self.inputs, tensors)
        if found:
            return found
        sizes = sizes_of(self.inputs, tensors)
        stated = ", ".join(f"{name} is {size}" for name, size in sizes.items())
        return [f"the artifact holds for `{limit}`, and {stated}" for limit in broken_limits(self.limits, sizes)]


SIGNATURE_KEYS = tuple(Signature.__dataclass_fields__)
"""Of a signature in a document."""


def sizes_of(specs: Sequence[TensorSpec], tensors: Sequence[HasShape]) -> dict[str, int]:
    """The value of each symbol, as far as an axis says it."""
    found: dict[str, int] = {}
    for spec, tensor in zip(specs, tensors, strict=True):
        for axis, size in zip(spec.shape, tensor.shape, strict=True):
            value = symbol_value(axis, size) if isinstance(axis, str) else None
            if value is not None:
                found.setdefault(*value)
    return found


def dtype_name(dtype: Any) -> str:
    """The name that PyTorch and NumPy share: "float32" for `torch.float32` and for `numpy.dtype("float32")`."""
    return str(dtype).removeprefix("torch.")


def described(tensor: HasShape) -> str:
    """ "float32[2, 3]"."""
    return f"{dtype_name(tensor.dtype)}{list(tensor.shape)}"


def mismatches(specs: Sequence[TensorSpec], tensors: Sequence[HasShape]) -> list[str]:
    """Why `tensors` do not fit `specs`, a line each. A symbol that occurs twice must have one size."""
    if len(specs) != len(tensors):
        return [f"expected {len(specs)} inputs ({', '.join(map(str, specs))}), got {len(tensors)}"]
    sizes: dict[str, int] = {}
    found = []
    for spec, tensor in zip(specs, tensors, strict=True):
        if not is_tensor_like(tensor):
            found.append(f"expected {spec}, got a {type(tensor).__name__}")
            continue
        fits = spec.accepts(tensor) and all(
            _fits(axis, size, sizes)
            for axis, size in zip(spec.shape, tensor.shape, strict=True)
            if isinstance(axis, str)
        )
        if not fits:
            found.append(f"expected {spec}, got {described(tensor)}")
    return found


def _fits(axis: str, size: int, sizes: dict[str, int]) -> bool:
    """Whether the axis may have this size, beside the values that symbols have already."""
    value = symbol_value(axis, size)
    if value is None:
        return not writes_axis(axis) and size == sizes.setdefault(axis, size)
    return value[1] == sizes.setdefault(*value)
