"""A loop that never ends on some inputs must not hang whoever only tries them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Endless(RuntimeError):
    """A block ran longer than it was given."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if time.monotonic() > self.end:
            raise Endless(f"no end after {self.seconds:g} s")
        return func(*args, **(kwargs or {}))


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """`Endless` at the first torch operator after `seconds`."""
    with _Watch(seconds):
        yield
