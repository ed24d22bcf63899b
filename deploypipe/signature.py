"""What goes into a model and what comes out: names, dtypes, shapes, and how outputs nest.

An artifact carries tensors in a flat list. `flatten` turns whatever an eager module returns (a tensor, a number, or
tuples, lists, dicts and dataclasses of them) into that list and a JSON-able description of the nesting;
`unflatten` puts the nesting back. A dataclass comes back as a dict of its fields, a number as a 0-d tensor.

This file travels inside archives: it imports nothing of deploypipe.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Structure = Any
"""None for a tensor, {"tuple" | "list": [Structure, …]}, or {"dict": [[name, Structure], …]}: pairs, because the order
decides which tensor is which, and JSON objects are easily reordered."""
Axes = Mapping[str, Mapping[int, str]]
"""Which axes stay dynamic: argument name → axis → symbol name. Axes with one symbol have one size."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input or output. An axis is a size, or a symbol's name where it is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TensorSpec":
        return cls(document["name"], document["dtype"], tuple(document["shape"]))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Signature:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    structure: Structure = None

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "structure": self.structure,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Signature":
        return cls(
            tuple(TensorSpec.from_json(spec) for spec in document["inputs"]),
            tuple(TensorSpec.from_json(spec) for spec in document["outputs"]),
            document["structure"],
        )


@dataclasses.dataclass(frozen=True)
class Sample:
    """Inputs, and the flat outputs that the eager module gave for them."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def to_json(self) -> dict[str, Any]:
        return {"inputs": [_encode(tensor) for tensor in self.inputs],
                "outputs": [_encode(tensor) for tensor in self.outputs]}  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Sample":
        return cls(
            tuple(_decode(item) for item in document["inputs"]),
            tuple(_decode(item) for item in document["outputs"]),
        )


def _encode(tensor: Tensor) -> dict[str, Any]:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return {
        "dtype": dtype_name(tensor.dtype),
        "shape": list(tensor.shape),
        "base64": base64.b64encode(raw.numpy().tobytes()).decode("ascii"),
    }


def _decode(document: Mapping[str, Any]) -> Tensor:
    raw = bytearray(base64.b64decode(document["base64"], validate=True))
    dtype = getattr(torch, document["dtype"])
    flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    return flat.reshape(document["shape"])


def dtype_name(dtype: torch.dtype) -> str:
    """`torch.float32` → "float32"."""
    return str(dtype).removeprefix("torch.")


def flatten(outputs: Any) -> tuple[list[Tensor], Structure]:
    """The tensors of a model's outputs in order, and how they nest. TypeError for what is no tensor."""
    if isinstance(outputs, Tensor):
        return [outputs], None
    if isinstance(outputs, bool | int | float):
        return [torch.tensor(outputs)], None
    items: Sequence[Any]
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        outputs = {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    if isinstance(outputs, Mapping):
        names, items = [str(name) for name in outputs], list(outputs.values())
    elif isinstance(outputs, tuple | list):
        names, items = None, outputs
    else:
        raise TypeError(f"a model may return tensors, numbers, and tuples, lists, dicts and dataclasses of them, "
                        f"not {type(outputs).__name__}")  # fmt: skip
    leaves: list[Tensor] = []
    structures: list[Structure] = []
    for item in items:
        item_leaves, structure = flatten(item)
        leaves += item_leaves
        structures.append(structure)
    if names is not None:
        return leaves, {"dict": [[name, item] for name, item in zip(names, structures, strict=True)]}
    return leaves, {"list" if isinstance(outputs, list) else "tuple": structures}


def unflatten(leaves: Sequence[Tensor], structure: Structure) -> Any:
    """The inverse of `flatten`."""
    remaining = iter(leaves)

    def build(node: Structure) -> Any:
        if node is None:
            return next(remaining)
        ((kind, items),) = node.items()
        if kind == "dict":
            return {name: build(item) for name, item in items}
        built = [build(item) for item in items]
        return built if kind == "list" else tuple(built)

    return build(structure)


def by_name(outputs: Any) -> Any:
    """The same outputs with every dict in the order of its names: a dict that is filled in another order on another
    path is the same dict."""
    if isinstance(outputs, Mapping):
        return {name: by_name(outputs[name]) for name in sorted(outputs)}
    if isinstance(outputs, list | tuple):
        items = [by_name(item) for item in outputs]
        return items if isinstance(outputs, list) else tuple(items)
    return outputs


def leaf_names(structure: Structure, root: str = "output") -> list[str]:
    """A name for each tensor: `output` for one alone, `output_0`, … by position, and a dict's own keys."""

    def walk(node: Structure, path: str) -> list[str]:
        if node is None:
            return [path or root]
        ((kind, items),) = node.items()
        if kind == "dict":
            return [name for key, item in items for name in walk(item, f"{path}.{key}" if path else key)]
        return [name for i, item in enumerate(items) for name in walk(item, f"{path or root}_{i}")]

    return walk(structure, "")
