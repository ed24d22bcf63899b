"""What the gate may spend on a model: processor time and memory. What does not fit is left out, and said to be."""

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from deploypipe.eager import eager_outputs
from deploypipe.errors import DeploypipeError, UsageError
from deploypipe.torch_compat.dispatch import TorchDispatchMode, pytree, storage_id

LEAST, MOST = 10.0, 60.0
"""Seconds: the least and the most of a budget that the gate chooses."""
EAGER_CALLS = 30.0
"""Between both it is the time of so many calls of eager on the example: one to two times what the plain exporter takes
for a model of many weights (`benchmarks/large_models.py`)."""
PER_PROBE = 1 / 5
"""Of the budget: what eager may be expected to take for one drawn probe, of which there are twenty to thirty."""
PER_REPETITION = 1 / 20
"""Of the budget: what eager may take for a drawn probe that is asked of float64 too, and under each setting of a
runtime."""
OF_FREE_MEMORY = 0.5
COPIES = 3
"""Eager, float64, which is twice as wide, and the artifact hold their values one after the other, and some of them
together: what a probe needs is less than so many times eager's peak."""
GB = 1e9


class LeftOut(UsageError):
    """A drawn probe that does not fit into the budget."""


@dataclass(frozen=True)
class Budget:
    """What a user allows; None is for the gate to choose."""

    seconds: float | None = None
    """Of processor time, for eager's answers, and as much again for each artifact."""
    memory: float | None = None
    """GB that one probe may need."""

    def __post_init__(self) -> None:
        """UsageError for what is no amount."""
        for name, value in (("seconds", self.seconds), ("memory", self.memory)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"a budget of {value:g} {'GB' if name == 'memory' else name} is none",
                                 "Give a number above 0.")  # fmt: skip

    def seconds_for(self, eager: float) -> float:
        """`eager`: what eager takes for the example, in seconds."""
        return min(MOST, max(LEAST, EAGER_CALLS * eager)) if self.seconds is None else self.seconds

    def bytes_allowed(self) -> float:
        return OF_FREE_MEMORY * psutil.virtual_memory().available if self.memory is None else self.memory * GB


BY_MODEL = Budget()
"""As the model needs it, and as the machine has it."""


def peak_of(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Bytes of the tensors that are alive at once, at most, while eager runs on `inputs`, without weights and inputs.
    0 where it cannot be watched."""
    alive = _Alive()
    with suppress(DeploypipeError), torch.no_grad(), alive:
        eager_outputs(module, inputs)
        return alive.peak
    return 0


class _Alive(TorchDispatchMode):
    """Adds up the storage that operators return, until it is freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        taken = {storage_id(leaf) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        returned = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(returned):
            if isinstance(leaf, Tensor) and storage_id(leaf) not in taken | self._known:
                self._add(leaf)
        return returned

    def _add(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), storage_id(tensor)
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
