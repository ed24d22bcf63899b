"""Where two places hold one value, either is as good an answer: `topk`, `sort` or `argmax` may name either."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.eager import reference_copy
from deploypipe.parity.recording import Recording, record
from deploypipe.torch_compat.dispatch import schema_of

ORDERING = frozenset(("topk", "sort"))
"""They name several places, each once."""
SELECTING = ORDERING | frozenset(("max", "min", "argmax", "argmin", "median", "nanmedian", "kthvalue", "mode"))
UNITS = 16.0
"""Units in the last place of the largest value beside them, by which two values may differ and still tie: as far as
rounding may take an artifact's own values."""


class Ties:
    """The choices that eager makes on one probe. The module is run once more, when it is first asked."""

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._module, self._inputs = module, inputs
        self._recording: Recording | None = None

    def excuse(self, want: Tensor, got: Tensor) -> Tensor:
        """Where the artifact's `got`, an output of whole numbers, names a place that is as good as eager's `want`."""
        if want.dtype != torch.int64 or got.dtype != want.dtype or got.shape != want.shape:
            return torch.zeros(want.shape, dtype=torch.bool)
        return next(self._excused(want, got), torch.zeros(want.shape, dtype=torch.bool))

    def _excused(self, want: Tensor, got: Tensor) -> Iterator[Tensor]:
        recording = self._recorded()
        for output, origin in zip(recording.outputs, recording.origins, strict=True):
            call = recording.steps[origin].call if origin is not None else None
            if call is not None and output.shape == want.shape and torch.equal(output, want):
                name = str(call[0]).split(".")[1]
                if name in SELECTING:
                    yield _as_good(name, *_operands(call), want, got)

    def _recorded(self) -> Recording:
        if self._recording is None:
            try:
                self._recording = record(reference_copy(self._module), self._inputs)
            except Exception:  # as in the search for a culprit: without it there is only less to excuse
                self._recording = Recording([], [], [])
        return self._recording


def _operands(call: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> tuple[Tensor, int | None, bool]:
    """What is chosen from, along which axis (None is all of it), and whether that axis stays."""
    function, args, kwargs = call
    schema = schema_of(function)
    named = dict(zip([argument.name for argument in schema.arguments], args, strict=False)) | kwargs
    defaults = {argument.name: argument.default_value for argument in schema.arguments}
    source: Tensor = named["self"]
    name = str(function).split(".")[1]
    if "dim" not in defaults:
        return source, None, False
    dim = named.get("dim", defaults["dim"])
    return source, dim, name in ORDERING or bool(named.get("keepdim", False))


def _as_good(name: str, source: Tensor, dim: int | None, keeps: bool, want: Tensor, got: Tensor) -> Tensor:
    if dim is None or not source.dim():
        source, dim, keeps = source.reshape(-1), 0, False
    ours, theirs = (places if keeps else places.unsqueeze(dim) for places in (want, got))
    inside = (theirs >= 0) & (theirs < source.shape[dim])
    wide = source.double()
    here, there = wide.gather(dim, ours), wide.gather(dim, torch.where(inside, theirs, 0))
    eps = torch.finfo(source.dtype).eps if source.is_floating_point() else 0.0
    largest = torch.where(wide.isfinite(), wide.abs(), 0.0).amax(dim, keepdim=True)
    same = ((there - here).abs() <= UNITS * eps * largest) | (there == here) | (there.isnan() & here.isnan())
    if name in ORDERING:  # each place once
        ordered = theirs.sort(dim).values
        repeated = (ordered.diff(dim=dim) == 0).any(dim, keepdim=True)
        same = same & ~repeated
    excused = same & inside
    return (excused if keeps else excused.squeeze(dim)).reshape(want.shape)
