"""Inputs of a model and what it answers to them, so that whoever has the model later can check it on the spot.

Arrays are kept as the bytes of a JSON document until somebody asks for them: who only reads a record, to find a running
server for example, needs no NumPy. This module travels inside archives.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from .tensors import Array


class EncodedTensor(msgspec.Struct, frozen=True):
    """An array as a JSON document holds it."""

    dtype: str
    shape: tuple[int, ...]
    base64: str

    @classmethod
    def of(cls, array: "Array") -> "EncodedTensor":
        from .tensors import to_base64

        return cls(str(array.dtype), array.shape, to_base64(array))

    @property
    def array(self) -> "Array":
        """ValueError where the bytes are no such array."""
        from .tensors import from_base64

        return from_base64(self.dtype, self.shape, self.base64)


class Sample(msgspec.Struct, frozen=True, rename={"encoded_inputs": "inputs", "encoded_outputs": "outputs"}):
    """Inputs, and the flat outputs that the eager module gave for them."""

    encoded_inputs: tuple[EncodedTensor, ...]
    encoded_outputs: tuple[EncodedTensor, ...]

    @classmethod
    def of(cls, inputs: "Iterable[Array]", outputs: "Iterable[Array]") -> "Sample":
        return cls(tuple(map(EncodedTensor.of, inputs)), tuple(map(EncodedTensor.of, outputs)))

    @property
    def inputs(self) -> "tuple[Array, ...]":
        return tuple(tensor.array for tensor in self.encoded_inputs)

    @property
    def outputs(self) -> "tuple[Array, ...]":
        return tuple(tensor.array for tensor in self.encoded_outputs)
