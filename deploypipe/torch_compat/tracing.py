"""The tracer that `torch.export` runs, the fake tensors under it, and what must be repaired in it."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._guards import detect_fake_mode
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    get_proxy_slot,
    make_fx,
    set_proxy_slot,
)
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

Tracer = Any


def shape_environment() -> Any:
    """What the current trace knows of sizes."""
    mode: Any = detect_fake_mode()
    if mode is None:
        mode = next(m for m in _get_current_dispatch_mode_stack() if type(m).__name__ == "FakeTensorMode")
    return mode.shape_env


def tracer() -> Tracer | None:
    """The current trace's tracer, where it notes which submodule it is in; else None."""
    mode = get_proxy_mode()
    return mode.tracer if mode is not None and hasattr(mode.tracer, "module_stack") else None


@contextlib.contextmanager
def submodules_left(by: Tracer | None) -> Iterator[None]:
    """The tracer notes which submodule it is in, and forgets to leave it when an exception passes: this leaves it."""
    held = list(by.module_stack.items()) if by is not None else []
    try:
        yield
    except BaseException:
        if by is not None:
            by.module_stack.clear()
            by.module_stack.update(held)
        raise


@contextlib.contextmanager
def outside_the_graph() -> Iterator[None]:
    """Inside, operations compute shapes and dtypes only, and leave nothing in the program."""
    environment = shape_environment()
    with disable_proxy_modes_tracing(), environment.ignore_fresh_unbacked_symbols():
        yield


def redirect(old: Any, new: Any) -> None:
    """From here on in the trace, uses of the tensor or number `old` mean `new`."""
    mode = get_proxy_mode()
    assert mode is not None
    set_proxy_slot(old, mode.tracer, get_proxy_slot(new, mode.tracer))


def remembered_number(tensor: Tensor) -> Any:
    """The symbol that torch gave `tensor.item()` when it was asked before; None when it was not."""
    return getattr(tensor, "item_memo", None)


def remember_number(tensor: Tensor, number: Any) -> None:
    tensor.item_memo = number  # type: ignore[attr-defined]


def assert_in_graph(condition: Tensor, message: str) -> None:
    """An assertion that the program makes when it runs."""
    torch._assert_async(condition, message)


@contextlib.contextmanager
def no_overlap_question() -> Iterator[None]:
    """`copy_` asks whether its target overlaps itself, and the answer would exclude size 1 for nothing."""
    original = torch._debug_has_internal_overlap
    torch._debug_has_internal_overlap = lambda input: 0
    try:
        yield
    finally:
        torch._debug_has_internal_overlap = original


def graph_of(function: Callable[..., Tensor], values: Sequence[Any]) -> fx.Graph:
    """The operators that `function` calls for these fake tensors, and their sizes."""
    with values[0].fake_mode:
        return make_fx(function)(*values).graph


@contextlib.contextmanager
def distributions_unchecked() -> Iterator[None]:
    """Inside, `torch.distributions` does not check its parameters unless it is asked to: such a check raises, or
    changes nothing."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


@contextlib.contextmanager
def modules_moved_where_needed() -> Iterator[None]:
    """Inside, a module that is moved to the dtype and device that it has (`self.part.to(x.dtype)`) is left as it is.
    torch would put the same weights into it again, which a trace does not allow."""
    original: Any = nn.Module._apply

    def apply(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        tensors = itertools.chain(module.parameters(recurse), module.buffers(recurse))
        moved: nn.Module = module if all(fn(tensor) is tensor for tensor in tensors) else original(module, fn, recurse)
        return moved

    nn.Module._apply = apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module._apply = original  # type: ignore[method-assign]
