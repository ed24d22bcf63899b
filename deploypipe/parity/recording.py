"""Eager, operator by operator: what each one computed, from what, in which submodule, on which line of the author's."""

import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.eager import flat_tensors
from deploypipe.torch_compat.dispatch import (
    TorchDispatchMode,
    decomposition_of,
    is_mutable,
    pytree,
    schema_of,
    storage_id,
)

INPUT = "input"

_TORCH = str(Path(torch.__file__).parent)
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


@dataclass
class Step:
    """One operator that eager ran, or one input (`operator` is then "input")."""

    operator: str
    """ "aten.convolution.default" """
    module: str
    """The path of the submodule whose forward ran it, "network.0"; "" for the whole module's own."""
    source: str
    """ "net.py:12", the line of the author's code that it came from; "" where there is none."""
    values: list[Tensor]
    reads: frozenset[int]
    """The steps whose results it was given."""
    from_inputs: bool
    """Whether its values depend on the inputs; else they are made of weights and constants alone."""
    call: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def is_view(self) -> bool:
        """Whether it only lays the same numbers out anew."""
        schema = schema_of(self.call[0]) if self.call else None
        returns = schema.returns if schema is not None else []
        return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


@dataclass(frozen=True)
class Recording:
    steps: list[Step]
    outputs: list[Tensor]
    """What the module returned, flat."""
    origins: list[int | None]
    """The step that made each output."""

    def parts(self, index: int) -> list[Tensor]:
        """What is computed on the way to the results of step `index`, by torch's own decomposition of its operator;
        none where torch has none."""
        call = self.steps[index].call
        decomposition = decomposition_of(call[0]) if call else None
        if call is None or decomposition is None:
            return []
        _, args, kwargs = call
        recorder = _Recorder()
        with torch.no_grad(), recorder:
            decomposition(*args, **kwargs)
        return [value for step in recorder.steps for value in step.values]


def record(module: nn.Module, inputs: Sequence[Tensor]) -> Recording:
    """Run `module`, which must be in eval mode, on the CPU, and nobody else's, on copies of `inputs`."""
    own = [tensor.detach().cpu().clone() for tensor in inputs]
    recorder = _Recorder(own)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_in_small_steps())
        stack.enter_context(_following(module, recorder.running))
        stack.enter_context(recorder)
        returned = module(*own)
    outputs = flat_tensors(returned)[0]
    origins = [recorder.origin(tensor) for tensor in outputs]
    return Recording(recorder.steps, outputs, origins)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps every tensor it has seen alive, so that an `id` stays the tensor's own."""

    supports_higher_order_operators = True

    def __init__(self, inputs: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.running: list[str] = []
        """The submodules whose forwards are running, by their paths."""
        self._alive: list[Tensor] = []
        self._made: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._places: dict[int, list[tuple[int, int]]] = {}
        self._given: dict[int, list[Step]] = {}
        for tensor in inputs:
            self._keep(Step(INPUT, "", "", [], frozenset(), from_inputs=True), [tensor])

    def origin(self, tensor: Tensor) -> int | None:
        return self._made.get(id(tensor), self._written.get(_storage(tensor)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        mutable = is_mutable(func)
        if mutable:
            for tensor in given:
                self._snapshot(tensor)
        returned = func(*args, **kwargs)
        reads = frozenset(step for tensor in given for step in self._read(tensor))
        results = [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)]
        if results:
            step = Step(
                operator=str(func),
                module=self.running[-1] if self.running else "",
                source=_author_line(),
                values=[],
                reads=reads,
                from_inputs=any(self.steps[index].from_inputs for index in reads),
                call=None if mutable else (func, args, kwargs),
            )
            index = self._keep(step, results)
            for tensor in results if mutable else ():
                self._written[_storage(tensor)] = index
            for tensor in given:
                self._given.setdefault(_storage(tensor), []).append(step)
        return returned

    def _read(self, tensor: Tensor) -> Iterator[int]:
        """The step that made a tensor, and the last one that wrote into its memory, perhaps through another view."""
        if id(tensor) in self._made:
            yield self._made[id(tensor)]
        if _storage(tensor) in self._written:
            yield self._written[_storage(tensor)]

    def _keep(self, step: Step, results: Sequence[Tensor]) -> int:
        index = len(self.steps)
        self.steps.append(step)
        for position, tensor in enumerate(results):
            step.values.append(tensor)
            self._alive.append(tensor)
            self._made[id(tensor)] = index
            self._places.setdefault(_storage(tensor), []).append((index, position))
        return index

    def _snapshot(self, tensor: Tensor) -> None:
        """Before memory is written to, what was there is saved for the steps that put it there."""
        for index, position in self._places.pop(_storage(tensor), ()):
            step = self.steps[index]
            step.values[position] = step.values[position].clone()
            step.call = None
        # A call that was given it cannot be repeated either.
        for step in self._given.pop(_storage(tensor), ()):
            step.call = None


@contextmanager
def _in_small_steps() -> Iterator[None]:
    """Attention as products and a softmax, rather than in one operator of its own in eval mode."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _following(module: nn.Module, running: list[str]) -> Iterator[None]:
    """While it is open, `running` ends with the path of the submodule that runs."""
    names = {part: name for name, part in module.named_modules()}

    def enter(part: nn.Module, _: Any) -> None:
        running.append(names[part])

    def leave(*_: Any) -> None:
        running.pop()

    with ExitStack() as hooks:
        for part in names:
            hooks.callback(part.register_forward_pre_hook(enter).remove)
            hooks.callback(part.register_forward_hook(leave, always_call=True).remove)
        yield


def _storage(tensor: Tensor) -> int:
    try:
        return storage_id(tensor)
    except (NotImplementedError, RuntimeError):  # a sparse tensor has none
        return -id(tensor)


def _author_line() -> str:
    """The innermost line that is in no library; where all are in libraries, the innermost outside torch."""
    found = ""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not record.__code__:
        name = frame.f_code.co_filename
        if name != __file__ and not name.startswith((_TORCH, "<frozen", "<eval_with_key")):
            line = f"{Path(name).name}:{frame.f_lineno}"
            if not name.startswith(_INSTALLED):
                return line
            found = found or line
        frame = frame.f_back  # type: ignore[assignment]
    return found
