"""A session as PyTorch's users see it: tensors in, what the eager module returns out."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from deploypipe.contract.signature import Signature
from deploypipe.contract.structure import Build, fields_alone, unflatten
from deploypipe.formats.session import Session
from deploypipe.formats.torch_session import to_array, to_tensor
from deploypipe.torch_compat.nodes import object_of, open_node


class Runner:
    """An artifact, or whatever answers as one, ready to run."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def runtime(self) -> str:
        return self.session.runtime

    @property
    def provider(self) -> str:
        return self.session.provider

    @property
    def device(self) -> str:
        return self.session.device

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.session.metadata

    @property
    def seal(self) -> Mapping[str, Any]:
        return self.session.seal

    @property
    def signature(self) -> Signature | None:
        """None for a file that deploypipe did not write."""
        return self.session.signature

    @property
    def precision(self) -> str:
        return self.session.precision

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns for this call of it; an object whose class cannot be imported here is a dict.
        TypeError where the call nests otherwise than the captured one, has another constant, or a tensor of another
        dtype or shape."""
        signature = self.signature
        if signature is None and kwargs:
            raise TypeError("this file does not say what its arguments are called: give its inputs by position")
        if signature is None or (signature.call is None and not kwargs):
            return self._answer(args, object_of)
        return self._answer(signature.call_form.tensors(args, kwargs, open_node), object_of)

    def answer(self, *inputs: Tensor) -> Any:
        """The same for the tensors of a call alone, in the signature's order; objects are dicts of their fields."""
        return self._answer(inputs, fields_alone)

    def _answer(self, inputs: Sequence[Tensor], build: Build) -> Any:
        signature = self.signature
        if signature is not None:
            for problem in signature.problems(inputs):
                raise TypeError(problem)
            return unflatten(self.run(*inputs), signature.structure, build)
        leaves = self.run(*inputs)
        return leaves[0] if len(leaves) == 1 else tuple(leaves)

    @property
    def stoppable(self) -> bool:
        return self.session.stoppable

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """A call in the block that uses more processor time than this raises Overrun, where it can be ended."""
        return self.session.within(seconds)

    def run(self, *inputs: Tensor) -> list[Tensor]:
        """The output tensors, flat and on the CPU."""
        return [to_tensor(array) for array in self.session.run([to_array(tensor) for tensor in inputs])]
