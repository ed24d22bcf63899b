"""A session as PyTorch's users see it: tensors in, what the eager module returns out."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from deploypipe.contract.signature import Signature
from deploypipe.contract.structure import unflatten
from deploypipe.formats.session import Session
from deploypipe.formats.torch_session import to_array, to_tensor


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

    def __call__(self, *inputs: Tensor) -> Any:
        """Run on `inputs`, in the signature's order. TypeError where their number, dtypes or shapes do not fit."""
        signature = self.signature
        if signature is not None:
            for problem in signature.problems(inputs):
                raise TypeError(problem)
            return unflatten(self.run(*inputs), signature.structure)
        leaves = self.run(*inputs)
        return leaves[0] if len(leaves) == 1 else tuple(leaves)

    def run(self, *inputs: Tensor) -> list[Tensor]:
        """The output tensors, flat and on the CPU."""
        return [to_tensor(array) for array in self.session.run([to_array(tensor) for tensor in inputs])]
