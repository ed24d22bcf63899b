"""An endpoint as a session, so that the gate compares it with eager as it does an artifact."""

from collections.abc import Sequence

import numpy as np

from deploypipe.contract.signature import TensorSpec
from deploypipe.contract.tensors import Array
from deploypipe.endpoints.endpoint import Endpoint
from deploypipe.endpoints.fitting import Fit
from deploypipe.formats.session import Session

MOST_VALUES = 16 << 20
"""Of one request: servers take 64 MB and more, and as JSON it would be twenty bytes a value."""


class EndpointSession(Session):
    """`outputs` are the module's, in its own order, in which they are returned."""

    runtime = "onnxruntime"
    """Its machine's kernels may sum in another order, whatever runs there."""

    def __init__(self, endpoint: Endpoint, fit: Fit, outputs: Sequence[TensorSpec]) -> None:
        super().__init__("", "", "server")
        self.endpoint, self.fit = endpoint, fit
        self.provider = endpoint.url
        self._outputs = list(outputs)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """A test set may come in larger batches than the server takes: then in several requests."""
        most, rows = self.endpoint.largest_batch, {len(array) if array.ndim else 0 for array in arrays}
        if not most or len(rows) != 1 or max(rows) <= most:
            return self._ask(arrays)
        parts = [self._ask([array[at : at + most] for array in arrays]) for at in range(0, max(rows), most)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _ask(self, arrays: Sequence[Array]) -> list[Array]:
        named = list(zip(self.fit.names, arrays, strict=True))
        found = dict(self.endpoint.infer(named, self._outputs))
        own = [spec.name for spec in self._outputs]
        if len(found) != len(own):
            raise ValueError(f"the answer has {len(found)} outputs ({', '.join(found)}), the module {len(own)}")
        if set(found) != set(own):
            # The server's own order is the one that it declares, if it does.
            declared = [spec.name for spec in self.endpoint.outputs]
            theirs = declared if set(declared) == set(found) else list(found)
            return [found[name] for name in theirs]
        return [found[name] for name in own]

    def unsent(self, inputs: Sequence[Array]) -> str:
        """Why `inputs` cannot be asked for; "" when they can."""
        for spec, array in zip(self.fit.inputs, inputs, strict=True):
            if not spec.accepts(array):
                return f"it takes {spec}, not {list(array.shape)}"
            if self.endpoint.largest_batch and spec.shape[:1] and array.shape[0] > self.endpoint.largest_batch:
                return f"its batch is {array.shape[0]}, the server takes {self.endpoint.largest_batch}"
            if array.size > MOST_VALUES:
                return f"it has {array.size:,} values, one request may have {MOST_VALUES:,}"
            floating = array.dtype.kind == "f"
            if floating and not self.endpoint.carries_non_finite and not np.isfinite(array).all():
                return "JSON has no NaN and no infinity"
        return ""
