"""The dry run of a block: outside the graph, it finds what the block reads from around it and what it changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import DeliberateRaise, current
from deploypipe.staging.frame import Frame, Values
from deploypipe.torch_compat.dispatch import TorchDispatchMode, is_mutable, pytree, schema_of, storage_id
from deploypipe.torch_compat.symbols import (
    SYMBOLIC,
    all_symbols,
    as_number,
    demands_stay_local,
    is_unbacked,
    is_unbacked_float,
    shape_environment_of,
    symbols_in,
)
from deploypipe.torch_compat.tracing import outside_the_graph, shape_environment, submodules_left

Block = Callable[[], Any]


class Recorder(TorchDispatchMode):
    """Sees every operation of a dry run: which tensors come from outside, and which storages are written."""

    def __init__(self, known_symbols: frozenset[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known_symbols = known_symbols
        """Those that existed before the dry run."""
        self.outside: dict[int, Tensor] = {}
        self.inside: dict[int, Tensor] = {}
        self.symbols: dict[Any, Any] = {}
        """The symbols from outside that are read, each with its shape environment."""
        self.own_symbols: set[Any] = set()
        self.changed: set[int] = set()
        """The storages that are written."""
        self.operations: set[str] = set()
        self.stale: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for leaf in pytree.tree_leaves((args, kwargs)):
            self.reads(leaf)
        if is_mutable(func):
            for argument, value in zip(schema_of(func).arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
                    self.changed.add(storage_id(value))
        self.operations.add(str(func))
        out = func(*args, **kwargs)
        for leaf in pytree.tree_leaves(out):
            self.makes(leaf)
        return out

    def reads(self, leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            if id(leaf) not in self.inside:
                self.outside.setdefault(id(leaf), leaf)
        elif isinstance(leaf, SYMBOLIC):
            for symbol in symbols_in(leaf) - self.own_symbols:
                self.symbols[symbol] = shape_environment_of(leaf)

    def makes(self, leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            if id(leaf) not in self.outside:
                self.inside[id(leaf)] = leaf
                for size in leaf.shape:
                    self.makes(size)
        elif isinstance(leaf, SYMBOLIC):
            self.own_symbols |= {
                symbol
                for symbol in symbols_in(leaf)
                if symbol not in self.symbols and is_unbacked(symbol) and symbol not in self.known_symbols
            }

    def changed_outside(self) -> list[Tensor]:
        """Tensors from outside that were written in place."""
        found = [t for t in self.outside.values() if storage_id(t) in self.changed]
        if len({storage_id(t) for t in found}) < len(found):
            raise Unsupported(
                "an in-place change inside a branch or loop",
                "the changed tensor is also used there under another name or as a view",
                "write `x = x + 1` instead of `x += 1` (or index assignment)",
            )
        return found

    def numbers(self) -> tuple[list[Any], list[tuple[Any, Tensor]]]:
        """The whole numbers from outside that are read, and the floats with the tensors that carry them."""
        ints: list[Any] = []
        floats: list[tuple[Any, Tensor]] = []
        for symbol, environment in self.symbols.items():
            number = as_number(symbol, environment)
            if is_unbacked_float(symbol):
                floats.append((number, torch.scalar_tensor(number, dtype=torch.float64)))
            else:
                ints.append(number)
        return ints, floats


@contextlib.contextmanager
def dry_run() -> Iterator[Recorder]:
    context, environment = current(), shape_environment()
    recorder = Recorder(all_symbols(environment))
    outside, context.symbols_outside = context.symbols_outside, recorder.known_symbols
    stale = dict(context.stale)
    context.dry += 1
    context.staged += 1
    try:
        with demands_stay_local(environment), outside_the_graph(), recorder:
            yield recorder
    finally:
        context.dry -= 1
        context.staged -= 1
        context.symbols_outside = outside
        recorder.stale, context.stale = context.stale, stale


def values_after(block: Block, frame: Frame, before: Values) -> Values | DeliberateRaise:
    """What a block leaves in the names of its frame; or the author's error, where it raises one."""
    frame.restore_afresh(before)
    try:
        with submodules_left(current().tracer):
            block()
    except DeliberateRaise as error:
        return error
    return frame.save()
