"""One model of one server, whoever wrote it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from deploypipe.contract.signature import TensorSpec
from deploypipe.contract.tensors import Array
from deploypipe.endpoints.asking import BUSY, Asker, said_by
from deploypipe.errors import ServingError

Named = tuple[str, Array]


class Endpoint(ABC):
    """What a model declares of itself, and its answers. A free axis of a shape is a string, a name of its own.

    `inputs` and `outputs` are empty where the server says nothing of them.
    """

    protocol: str
    """What it speaks, in words."""
    largest_batch: int | None = None
    """The most rows of one request, where the server says so."""
    leading_axis_is_free: bool = False
    """Whether every input has a batch axis, of any size, though nothing is declared."""
    carries_non_finite: bool = False
    """Whether NaN and infinities can be sent."""

    def __init__(
        self, asker: Asker, name: str, inputs: Sequence[TensorSpec] = (), outputs: Sequence[TensorSpec] = ()
    ) -> None:
        self.asker, self.name = asker, name
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    @property
    def url(self) -> str:
        return self.asker.url

    @abstractmethod
    def infer(self, inputs: Sequence[Named], wanted: Sequence[TensorSpec]) -> list[Named]:
        """The outputs by name, in the order of the answer. `wanted` says which dtypes are expected, by the module's own
        order, where the protocol carries none.

        ValueError when the request is refused or the answer cannot be read; ServingError when nobody answers.
        """

    def close(self) -> None:
        self.asker.close()

    def ask(self, path: str, body: bytes, content_type: str, **headers: str) -> tuple[bytes, str]:
        """The body of the answer, and the length of the JSON at its head, "" where it is JSON alone."""
        response = self.asker.post(path, body, {"content-type": content_type, **headers})
        status = response.status_code
        if status in BUSY:
            raise ServingError(f"{self.url} is overloaded or stopping (HTTP {status}): {said_by(response)}")
        if status != 200:
            raise ValueError(f"the server refuses the request (HTTP {status}): {said_by(response)}")
        return response.content, response.headers.get("inference-header-content-length", "")
