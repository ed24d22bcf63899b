"""Whether a module that writes its attributes remembers earlier calls by them, or only keeps what it computes anew."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.contract.signature import Axes
from deploypipe.contract.sizes import parse_axis
from deploypipe.eager import argument_names, deadline, resized
from deploypipe.staging.copies import fingerprint, working_copy
from deploypipe.staging.outputs import tensors_only
from deploypipe.torch_compat.dispatch import pytree

OTHER_SIZES = (3, 5)
"""Of which one at least is not the example's."""

PATIENCE = 20.0
"""Seconds for one call: on inputs that nobody gives a model, a loop of it may have no end."""


def remembers(module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Axes) -> bool:
    """Whether eager's answer depends on the calls before: one copy of the module is called with each of several inputs
    in turn, other values and other sizes among them, and with the first again at the end; each answer must be what a
    copy gives that was never called. A memory that shows only after more calls than these is not seen here."""
    used = working_copy(module)
    for inputs in _calls(module, example_inputs, dynamic):
        expected = _answer(working_copy(module), inputs)
        if expected is not None and not _same(_answer(used, inputs), expected):
            return True
    return False


def without_caches(module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Axes) -> nn.Module | None:
    """A copy that has forgotten what it keeps for the sizes that it saw last, which a trace would take for constants:
    attributes that calls with other sizes write are None, or empty. None where there are no such attributes, where they
    are a memory, or where forward needs them."""
    used = working_copy(module)
    written: set[str] = set()
    for inputs in _calls(module, example_inputs, dynamic):
        before = fingerprint(used)
        _answer(used, inputs)
        written |= written_between(before, fingerprint(used))
    if not written or remembers(module, example_inputs, dynamic):
        return None
    emptied = working_copy(module)
    for name in written:
        path, _, attribute = name.rpartition(".")
        owner = emptied.get_submodule(path)
        value = getattr(owner, attribute, None)
        setattr(owner, attribute, type(value)() if isinstance(value, list | dict | set) else None)
    expected = _answer(working_copy(module), example_inputs)
    return emptied if expected is not None and _same(_answer(working_copy(emptied), example_inputs), expected) else None


def written_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """The names whose fingerprints differ."""
    return {name for name in {**before, **after} if before.get(name) != after.get(name)}


def _calls(module: nn.Module, example_inputs: tuple[Any, ...], dynamic: Axes) -> Iterator[tuple[Any, ...]]:
    turned = tuple(
        value.flip(tuple(range(value.dim()))) if isinstance(value, Tensor) else value for value in example_inputs
    )
    yield from (example_inputs, turned, turned)
    names = argument_names(module, example_inputs)
    symbols = {parse_axis(written).symbol for axes in dynamic.values() for written in axes.values()}
    for symbol in sorted(symbols):
        for size in OTHER_SIZES:
            yield resized(example_inputs, names, dynamic, {symbol: size})
    yield example_inputs


def _answer(module: nn.Module, inputs: tuple[Any, ...]) -> list[Any] | None:
    """None where it fails: some sizes are none that it takes. What forward prints is not shown: nobody called it."""
    silence = io.StringIO()
    try:
        with (
            deadline(PATIENCE),
            torch.no_grad(),
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
        ):
            outputs = module(*(value.clone() if isinstance(value, Tensor) else value for value in inputs))
        return pytree.tree_leaves(tensors_only(outputs))
    except Exception:
        return None


def _same(first: list[Any] | None, second: list[Any]) -> bool:
    return first is not None and len(first) == len(second) and all(map(_equal, first, second))


def _equal(first: Any, second: Any) -> bool:
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return bool(first == second)
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True)
