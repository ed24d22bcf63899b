"""What an artifact is held to: the author's module run by eager, and a copy of it in float64, which is more exact."""

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.contract.structure import Structure, by_name, unflatten
from deploypipe.eager import eager_outputs, flat_tensors, reference_copy
from deploypipe.errors import UsageError
from deploypipe.parity.budget import BY_MODEL, COPIES, GB, PER_PROBE, PER_REPETITION, Budget, LeftOut, peak_of
from deploypipe.parity.probes import Probe
from deploypipe.parity.rounding import NARROW, RoundedSums, nudged
from deploypipe.parity.ties import Ties
from deploypipe.torch_compat.dispatch import TorchDispatchMode
from deploypipe.torch_compat.quantized import emulated

PATIENCE = 5.0
"""Seconds of processor time for a drawn probe: on inputs that nobody gives a model, a loop of it may have no end."""
SHORT_PATIENCE = 0.5
"""The same for one with NaN or infinities, or twice what eager took for any other."""
NUDGES = 6
"""Runs with moved inputs and weights: a value that seldom moves would be missed in one."""


@dataclass(frozen=True)
class EagerOutputs:
    """Eager's outputs on one probe, flat, dicts in the order of their names."""

    leaves: tuple[Tensor, ...]
    structure: Structure
    exact: tuple[Tensor, ...] | None
    """The same in float64; None where the probe does not ask for it, or the module does not run in float64."""
    moved_by_rounding: Callable[[], tuple[Tensor, ...] | None] = lambda: None
    """How far each value of `exact` moves when inputs, weights and sums move by a unit in the last place of their
    dtypes: what no arithmetic in that dtype can be held to. Several runs in float64, made when it is first asked; None
    without `exact`."""
    places: tuple[int, ...] = ()
    """Where each of `leaves` stands in the module's own order, which a file that knows no names keeps; empty where
    both are the same."""
    ties: Ties | None = None
    """Where another choice among equal values is as good; None where nobody knows what was chosen from."""
    seconds: float = 0.0
    """Of processor time that eager took."""


class Reference:
    """A module in eval mode, eager, on the CPU. It answers each probe once, for however many artifacts."""

    def __init__(self, module: nn.Module, budget: Budget = BY_MODEL) -> None:
        self.module = reference_copy(module)
        self.budget = budget
        self.left_out: list[str] = []
        """A line for each drawn probe that does not fit into the budget."""
        self._wide: nn.Module | None = None
        self._answers: dict[int, tuple[Probe, EagerOutputs]] = {}
        self._first: tuple[Probe, float] | None = None
        """The first probe that was answered, which is the example, and the seconds that it took."""
        self._spent = 0.0
        self._longest = 0.0
        self._per_value = math.inf
        """Seconds for each value of the inputs, at best."""

    @property
    def seconds(self) -> float:
        """Of processor time, that eager's answers may take, and those of each artifact as much again."""
        return self.budget.seconds_for(self._first[1] if self._first else 0.0)

    def answer(self, probe: Probe) -> EagerOutputs:
        """UsageError when eager itself does not take the probe; `LeftOut` when it does not fit into the budget."""
        # The probe is kept with its answer, so that its id is not given to another one.
        if id(probe) not in self._answers:
            self._answers[id(probe)] = probe, self._ask(probe)
        return self._answers[id(probe)][1]

    def release(self) -> None:
        """Let go of the float64 copy, which is made again where it is asked for."""
        self._wide = None

    def is_cheap(self, probe: Probe) -> bool:
        return self._is_cheap(self.answer(probe).seconds)

    def _is_cheap(self, seconds: float) -> bool:
        return seconds <= PER_REPETITION * self.seconds

    def repeats(self, probe: Probe) -> bool:
        """Whether eager returns the same when it is asked again; it does not where it draws random numbers."""
        again, _ = _sorted_outputs(self.module, probe.inputs)
        pairs = zip(self.answer(probe).leaves, again, strict=True)
        return all(torch.allclose(exact(a), exact(b), rtol=1e-6, atol=1e-6, equal_nan=True) for a, b in pairs)

    def _ask(self, probe: Probe) -> EagerOutputs:
        if probe.optional and (problem := self._beyond_budget(probe)):
            self.left_out.append(f"{probe.family} [{probe.shapes}] ({problem})")
            raise LeftOut(f"probe {probe.family} [{probe.shapes}]: {problem}")
        start = time.thread_time()
        try:
            own, nesting = eager_outputs(self.module, probe.inputs, self._patience(probe))
        except UsageError as cause:
            raise UsageError(f"probe {probe.family} [{probe.shapes}]: {cause.message}") from cause
        seconds = time.thread_time() - start
        self._longest = max(self._longest, seconds)
        self._per_value = min(self._per_value, seconds / max(probe.values, 1))
        self._first = self._first or (probe, seconds)
        leaves, structure = _by_name(own, nesting)
        numbered, _ = _by_name([torch.tensor(place) for place in range(len(own))], nesting)
        wanted = probe.in_float64 and (self._is_cheap(seconds) or not probe.optional)
        exact = self._in_float64(probe, leaves) if wanted else None
        self._spent += time.thread_time() - start
        moved = functools.cache(functools.partial(self._moved_by_rounding, probe, leaves, exact))
        ties = Ties(self.module, probe.inputs)
        return EagerOutputs(tuple(leaves), structure, exact, moved, tuple(map(int, numbered)), ties, seconds)

    def _beyond_budget(self, probe: Probe) -> str:
        """Why a probe does not fit; "" where it does."""
        seconds = 0.0 if math.isinf(self._per_value) else self._per_value * probe.values
        if seconds > PER_PROBE * self.seconds or self._spent + seconds > self.seconds:
            return f"about {seconds:{'.0f' if seconds > 1 else '.1g'}} s of eager's time"
        if self._first is None or probe.values <= self._first[0].values:
            return ""
        most = COPIES * self._bytes_per_value * probe.values
        return f"up to {most / GB:.1f} GB of memory" if most > self.budget.bytes_allowed() else ""

    @functools.cached_property
    def _bytes_per_value(self) -> float:
        assert self._first is not None
        probe, _ = self._first
        return peak_of(self.module, probe.inputs) / max(probe.values, 1)

    def _widened(self) -> nn.Module:
        return emulated(copy.deepcopy(self.module)).double()

    def _patience(self, probe: Probe) -> float | None:
        if probe.non_finite:
            return min(PATIENCE, max(SHORT_PATIENCE, 2 * self._longest))
        return PATIENCE if probe.optional else None

    def _moved_by_rounding(
        self, probe: Probe, leaves: Sequence[Tensor], exact: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, ...] | None:
        if exact is None:
            return None
        generator = torch.Generator().manual_seed(0)
        dtype = max((leaf.dtype for leaf in leaves if leaf.dtype in NARROW), key=_unit, default=torch.float32)
        own_weights, moving = _tensors(emulated(self.module)), self._widened()
        moved = [torch.zeros_like(leaf, dtype=torch.float64) for leaf in exact]
        for _ in range(NUDGES):
            with torch.no_grad():
                for own, wide in zip(own_weights, _tensors(moving), strict=True):
                    wide.copy_(nudged(own, generator))
            try:
                inputs = tuple(nudged(tensor, generator) for tensor in probe.inputs)
                with float64(), RoundedSums(dtype, generator):
                    found, _ = _sorted_outputs(moving, inputs, PATIENCE)
            except Exception:
                return None
            if [leaf.shape for leaf in found] != [leaf.shape for leaf in exact]:
                return None
            moved = [
                torch.maximum(most, (a.to(b.dtype) - b).abs().double().nan_to_num(nan=0.0, posinf=math.inf))
                for most, a, b in zip(moved, found, exact, strict=True)
            ]
        return tuple(moved)

    def _in_float64(self, probe: Probe, leaves: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
        if not any(tensor.dtype in NARROW for tensor in (*leaves, *probe.inputs)):
            return None
        if self._wide is None:
            self._wide = self._widened()
        try:
            with float64():
                exact, _ = _sorted_outputs(
                    self._wide, tuple(map(widened, probe.inputs)), self._patience(probe) or PATIENCE
                )
        except Exception:  # whatever a user's code raises when its dtypes are not the ones it was written for
            return None
        # A decision may have the other outcome in float64 and lead to other shapes: those cannot be compared.
        same = len(exact) == len(leaves) and all(a.shape == b.shape for a, b in zip(exact, leaves, strict=True))
        return tuple(exact) if same else None


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def exact(tensor: Tensor) -> Tensor:
    """The same values in the widest dtype of their kind."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def widened(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.dtype in NARROW else tensor


def _sorted_outputs(
    module: nn.Module, inputs: tuple[Tensor, ...], patience: float | None = None
) -> tuple[list[Tensor], Structure]:
    return _by_name(*eager_outputs(module, inputs, patience))


def _by_name(leaves: Sequence[Tensor], structure: Structure) -> tuple[list[Tensor], Structure]:
    return flat_tensors(by_name(unflatten(leaves, structure)))


class _Float64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Wherever an operator is asked for a narrower float (`x.float()`, `torch.zeros(3)`), it gives float64."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        def wide(value: Any) -> Any:
            return torch.float64 if isinstance(value, torch.dtype) and value in NARROW else value

        return func(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})


@contextmanager
def float64() -> Iterator[None]:
    """All floating-point arithmetic of the block in float64, whatever dtypes its code names."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Float64():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(before)
