"""Turns two blocks into `torch.cond`, or a condition and a body into `torch.while_loop`.

Every block runs twice. The dry run, outside the graph, finds what it reads from around it, what it changes in place
and what its names hold afterwards; the second run is traced by the higher-order operator, with everything read from
outside passed as an operand. Operands are the very objects that the block's closures refer to, so the tracer knows
them; only what is changed in place, and symbolic floats, must be redirected inside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from sympy import GreaterThan, LessThan, StrictGreaterThan, StrictLessThan, Unequality  # type: ignore[import-untyped]
from torch import Tensor
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    get_proxy_slot,
    set_proxy_slot,
)
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.aliases import join_results, sources, storage
from deploypipe.staging.context import DeliberateRaise, current, module_stack_kept
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.packing import flat, number_tensor, pack, unpack
from deploypipe.staging.templates import (
    Fixed,
    GrowT,
    NumberT,
    Poison,
    Template,
    TensorT,
    fresh_containers,
    same_template,
    unify,
)
from deploypipe.staging.undefined import Undefined

Block = Callable[[], Any]
Get = Callable[[], tuple[Any, ...]]
Put = Callable[[tuple[Any, ...]], None]

UNREAD = "has no value here, as nothing reads it"
INEQUALITIES = (StrictGreaterThan, StrictLessThan, GreaterThan, LessThan)
INDEX = TensorT(torch.int64, (), torch.device("cpu"))
SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of a dry run: which tensors come from outside, and which storages are written."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.outside: dict[int, Tensor] = {}
        self.inside: dict[int, Tensor] = {}
        self.symbols: dict[Any, Any] = {}
        self.own_symbols: set[Any] = set()
        self.changed: set[int] = set()
        self.operations: set[str] = set()
        self.stale: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for leaf in pytree.tree_leaves((args, kwargs)):
            self.reads(leaf)
        schema = getattr(func, "_schema", None)
        if schema is not None and schema.is_mutable:
            for argument, value in zip(schema.arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
                    self.changed.add(storage(value))
        self.operations.add(str(func))
        out = func(*args, **kwargs)
        for leaf in pytree.tree_leaves(out):
            self.makes(leaf)
        return out

    def reads(self, leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            if id(leaf) not in self.inside:
                self.outside.setdefault(id(leaf), leaf)
            for size in leaf.shape:
                if isinstance(size, torch.SymInt) and id(leaf) not in self.inside:
                    continue
        elif isinstance(leaf, SYMBOLIC):
            for symbol in leaf.node.expr.free_symbols:
                if symbol not in self.own_symbols:
                    self.symbols[symbol] = leaf.node.shape_env

    def makes(self, leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            if id(leaf) not in self.outside:
                self.inside[id(leaf)] = leaf
                for size in leaf.shape:
                    self.makes(size)
        elif isinstance(leaf, SYMBOLIC):
            self.own_symbols |= {
                s
                for s in leaf.node.expr.free_symbols
                if s not in self.symbols and _is_unbacked(s) and s not in self.before
            }

    before: frozenset[Any] = frozenset()

    def changed_outside(self) -> list[Tensor]:
        """Tensors from outside that were written in place."""
        found = [t for t in self.outside.values() if storage(t) in self.changed]
        if len({storage(t) for t in found}) < len(found):
            raise Unsupported(
                "an in-place change inside a branch or loop",
                "the changed tensor is also used there under another name or as a view",
                "write `x = x + 1` instead of `x += 1` (or index assignment)",
            )
        return found


def _is_unbacked(symbol: Any) -> bool:
    return str(symbol).startswith(("u", "zuf"))


def _fake_mode() -> Any:
    from torch._guards import detect_fake_mode

    mode = detect_fake_mode()
    if mode is None:
        for m in torch.utils._python_dispatch._get_current_dispatch_mode_stack():
            if type(m).__name__ == "FakeTensorMode":
                return m
    return mode


@contextlib.contextmanager
def local_guards(shape_env: Any) -> Iterator[None]:
    """What a block's operations demand of sizes (`x[:, 1]` needs two columns) holds only where the block runs."""
    count, ranges = len(shape_env.guards), dict(shape_env.var_to_range)
    asserts = {k: list(v) for k, v in shape_env.deferred_runtime_asserts.items()}
    number = shape_env.num_deferred_runtime_asserts
    try:
        yield
    finally:
        shape_env.guards[count:] = [g for g in shape_env.guards[count:] if not _demand(g.expr)]
        shape_env.var_to_range.update(ranges)
        shape_env.deferred_runtime_asserts.clear()
        shape_env.deferred_runtime_asserts.update(asserts)
        shape_env.num_deferred_runtime_asserts = number


@contextlib.contextmanager
def no_stride_guards() -> Iterator[None]:
    """`torch.cond` compares the strides of its results, which are contiguous, and the answers would exclude size 1."""
    shape_env = _fake_mode().shape_env
    count = len(shape_env.guards)
    yield
    shape_env.guards[count:] = [g for g in shape_env.guards[count:] if not isinstance(g.expr, INEQUALITIES)]


def _demand(guard: Any) -> bool:
    """Whether a guard is a demand that the operation checks itself when it runs: a bound, or not being empty."""
    return isinstance(guard, INEQUALITIES) or (isinstance(guard, Unequality) and guard.rhs == 0)


@contextlib.contextmanager
def dry_run() -> Iterator[Recorder]:
    context, mode = current(), _fake_mode()
    recorder = Recorder()
    recorder.before = frozenset(mode.shape_env.var_to_range)
    outside, context.symbols_outside = context.symbols_outside, recorder.before
    stale = dict(context.stale)
    context.dry += 1
    context.staged += 1
    try:
        with (
            local_guards(mode.shape_env),
            disable_proxy_modes_tracing(),
            mode.shape_env.ignore_fresh_unbacked_symbols(),
            recorder,
        ):
            yield recorder
    finally:
        context.dry -= 1
        context.staged -= 1
        context.symbols_outside = outside
        recorder.stale, context.stale = context.stale, stale


def _run(block: Block, get: Get, put: Put, state: tuple[Any, ...]) -> tuple[Any, ...] | DeliberateRaise:
    put(fresh(state))
    try:
        with module_stack_kept():
            block()
    except DeliberateRaise as error:
        return error
    return tuple(get())


def fresh(state: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(fresh_containers(v) for v in state)


def operands_of(recorder: Recorder, state: list[Any]) -> tuple[list[Tensor], list[Any], list[tuple[Any, Tensor]]]:
    """Outside tensors, symbolic ints, and symbolic floats with the tensors that carry them."""
    for value in state:
        recorder.reads(value)
    tensors = list(recorder.outside.values())
    ints: list[Any] = []
    floats: list[tuple[Any, Tensor]] = []
    for symbol, shape_env in recorder.symbols.items():
        if str(symbol).startswith("zuf"):
            number = shape_env.create_symfloatnode(symbol, hint=None)
            floats.append((number, torch.scalar_tensor(number, dtype=torch.float64)))
        else:
            ints.append(shape_env.create_symintnode(symbol, hint=None))
    return tensors, ints, floats


@contextlib.contextmanager
def inside_region() -> Iterator[None]:
    """While a block is traced into the graph of a branch or loop."""
    context, shape_env = current(), _fake_mode().shape_env
    outside, context.symbols_outside = context.symbols_outside, frozenset(shape_env.var_to_range)
    context.staged += 1
    try:
        with local_guards(shape_env):
            yield
    finally:
        context.staged -= 1
        context.symbols_outside = outside


def redirect(old: Any, new: Any) -> None:
    """Inside a traced block, let uses of an outside object mean `new`."""
    mode = get_proxy_mode()
    assert mode is not None
    set_proxy_slot(old, mode.tracer, get_proxy_slot(new, mode.tracer))


def packed(tensor: Tensor) -> Tensor:
    """`tensor.contiguous()`, right for every size, whatever it asks about this one."""
    shape_env = _fake_mode().shape_env
    count = len(shape_env.guards)
    made = tensor.contiguous()
    del shape_env.guards[count:]
    return made


def outputs(
    templates: list[Template], values: tuple[Any, ...], extra: list[Tensor], avoid: set[int]
) -> tuple[Tensor, ...]:
    """A block's results as tensors that share no memory with its inputs or with each other."""
    seen = set(avoid)
    out: list[Tensor] = []
    for tensor in [t for template, v in zip(templates, values, strict=True) for t in pack(template, v)] + extra:
        tensor = tensor.clone(memory_format=torch.contiguous_format) if storage(tensor) in seen else packed(tensor)
        if storage(tensor) in seen:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage(tensor))
        out.append(tensor)
    return tuple(out)


def placeholders(templates: list[Template]) -> list[Tensor]:
    """Tensors like those that will carry the templates, outside any graph."""
    return [
        torch.empty([_unknown_size() if d is None else d for d in t.dims], dtype=t.dtype, device=t.device)
        for template in templates
        for t in flat(template)
    ]


def _unknown_size() -> Any:
    size = torch.empty((), dtype=torch.int64).item()
    torch._check(size >= 0)
    return size


def _apart(tensors: list[Tensor]) -> list[Tensor]:
    """Operands that share no memory: of several views of one tensor, all but the first are copied."""
    seen: set[int] = set()
    out: list[Tensor] = []
    for tensor in tensors:
        out.append(tensor.clone() if storage(tensor) in seen else tensor)
        seen.add(storage(tensor))
    return out


def rebuild(templates: list[Template], tensors: list[Tensor], names: tuple[str, ...]) -> tuple[Any, ...]:
    rest = list(tensors)
    return tuple(unpack(t, rest, n) for t, n in zip(templates, names, strict=True))


def dead(name: str) -> Undefined:
    return Undefined(name, UNREAD)


def stage_if(
    pred: Tensor, then: Block, orelse: Block, get: Get, put: Put, names: tuple[str, ...], live: tuple[str, ...]
) -> None:
    """Both blocks as one `torch.cond`; afterwards the names hold its results."""
    before = tuple(get())
    context = current()
    with dry_run() as recorder:
        first = _run(then, get, put, before)
        by_then, context.stale = context.stale, {}
        second = _run(orelse, get, put, before)
        context.stale.update(by_then)
        put(before)
        if isinstance(first, DeliberateRaise) or isinstance(second, DeliberateRaise):
            _one_side_raises(pred, first, second, then, orelse)
            return
        templates: list[Template] = [
            unify(a, b, n) if n in live else Fixed(dead(n)) for a, b, n in zip(first, second, names, strict=True)
        ]
        leaves = [t for template, a in zip(templates, first, strict=True) for t in pack(template, a)]
        leaves += [t for template, b in zip(templates, second, strict=True) for t in pack(template, b)]
        changed = recorder.changed_outside()
    context.stale.update(recorder.stale)
    sides = [first, second]
    if context.dry:
        pred.clone()
        for tensor in changed:
            tensor.copy_(tensor.clone())
        for leaf in leaves:
            leaf.clone()  # the recorder around this one must know what this block passes through
        results = placeholders(templates)
        join_results(templates, results, sides)
        put(_after_if(templates, results, names, before, first, second))
        return
    if not leaves and not changed:
        put(rebuild(templates, [], names))
        return
    tensors, ints, floats = operands_of(recorder, leaves)
    avoid = {storage(t) for t in tensors}

    def traced(block: Block) -> Callable[..., tuple[Tensor, ...]]:
        def run(*operands: Any) -> tuple[Tensor, ...]:
            put(fresh(before))
            _redirect_floats(floats, operands[len(operands) - len(floats) :])
            for tensor, operand in zip(tensors, operands, strict=False):
                if tensor is not operand:
                    redirect(tensor, operand)
            for tensor in changed:
                redirect(tensor, tensor.clone())
            with inside_region():
                block()
                return outputs(templates, tuple(get()), changed, avoid)

        return run

    operands = (*_apart(tensors), *ints, *[t for _, t in floats])
    with no_stride_guards():
        results = list(torch.ops.higher_order.cond(pred, traced(then), traced(orelse), operands))
    put(_after_if(templates, results, names, before, first, second))
    for tensor, result in zip(changed, results[len(results) - len(changed) :], strict=True):
        tensor.copy_(result)
    join_results(templates, results, sides)


def _redirect_floats(floats: list[tuple[Any, Tensor]], operands: tuple[Any, ...]) -> None:
    for (number, _), operand in zip(floats, operands, strict=True):
        redirect(number, operand.item())


def _after_if(
    templates: list[Template], tensors: list[Tensor], names: tuple[str, ...], before: Any, first: Any, second: Any
) -> tuple[Any, ...]:
    values = rebuild(templates, tensors, names)
    for value, old, a, b in zip(values, before, first, second, strict=True):
        if isinstance(value, GrowingList):
            held = len(old) if isinstance(old, list) else 0
            growth = [side.grown if isinstance(side, GrowingList) else max(0, len(side) - held) for side in (a, b)]
            value.reserved = isinstance(old, GrowingList) and old.reserved
            value.grown = max(growth) if all(isinstance(g, int) for g in growth) else torch.sym_max(*growth)
            value.exact = False
    return values


def _one_side_raises(pred: Tensor, first: Any, second: Any, then: Block, orelse: Block) -> None:
    """`if bad: raise …`: in eager the call fails, so the graph checks the same and goes on with the other side."""
    if isinstance(first, DeliberateRaise) and isinstance(second, DeliberateRaise):
        raise first
    raise _OtherSide(first if isinstance(first, DeliberateRaise) else second, isinstance(second, DeliberateRaise))


class _OtherSide(Exception):
    def __init__(self, error: DeliberateRaise, then_survives: bool) -> None:
        self.error, self.then_survives = error, then_survives


OtherSide = _OtherSide


@dataclass
class Trips:
    """What is known about a loop before it runs: how often at most, whether exactly so, and room counted for lists."""

    most: Any = None
    exact: bool = False
    room: dict[str, Any] = field(default_factory=dict)
    visible: frozenset[Any] = frozenset()


def _entered(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Growing lists at the start of a loop body: their growth is counted from here."""
    for value in values:
        if isinstance(value, GrowingList):
            value.grown, value.exact, value.reserved = 0, True, True
    return values


def stage_while(
    test: Callable[[], Any],
    body: Block,
    get: Get,
    put: Put,
    names: tuple[str, ...],
    live: tuple[str, ...],
    carried: tuple[str, ...],
    trips: Trips | None = None,
) -> None:
    """A condition and a body as one `torch.while_loop`."""
    trips = trips or Trips()
    mode = _fake_mode()
    trips.visible = frozenset(mode.shape_env.var_to_range)
    before = tuple(v if n in carried else Undefined(n) for v, n in zip(get(), names, strict=True))
    # The index of a `for` is never a constant: what holds for its first value alone must not be looked at.
    templates: list[Template] = [INDEX if n.endswith("#") else Fixed(v) for v, n in zip(before, names, strict=True)]
    after: tuple[Any, ...] | None = None
    for _ in range(12):
        with dry_run() as recorder:
            start = placeholders(templates)
            for tensor in start:
                recorder.makes(tensor)
            join_results(templates, start, [after] if after is not None else [])
            head = _entered(rebuild(templates, start, names))
            put(fresh(head))
            keep_going = test()
            if not isinstance(keep_going, bool):
                number_tensor(keep_going, torch.bool)  # the recorder must see the sizes that the condition reads
            body()
            after = tuple(get())
            joined = [
                unify(h, a, n, t, loop=True) if n in carried or n in live else Fixed(Undefined(n))
                for h, a, n, t in zip(head, after, names, templates, strict=True)
            ]
            joined = _reserve(joined, templates, names, before, after, trips)
            leaves = [t for template, a in zip(joined, after, strict=True) for t in pack(template, a)]
        if all(same_template(a, b) for a, b in zip(templates, joined, strict=True)):
            break
        templates = joined
    else:
        put(before)
        raise Unsupported("a loop", "the types of its variables do not settle", "keep each variable's type the same")
    put(before)
    changed = recorder.changed_outside()
    written = [storage(t) in recorder.changed for t in start]
    context = current()
    context.stale.update(recorder.stale)
    sides = [before, after]
    for tensor, group in zip(
        start, [g for t, b in zip(templates, before, strict=True) for g in sources(t, b)], strict=True
    ):
        if storage(tensor) in recorder.changed:  # eager changes what the loop starts with
            context.stale.update({storage(source): source for source in group})
    if keep_going is True:
        raise Unsupported("a loop", "its condition never changes, so it would not end", "")
    if context.dry:
        for tensor in changed:
            tensor.copy_(tensor.clone())
        for template, value in zip(templates, before, strict=True):
            for tensor in pack(template, value):
                tensor.clone()
        results = placeholders(templates)
        join_results(templates, results, sides)
        put(_after_loop(templates, results, names, live, before, after, trips))
        return
    initial = outputs(templates, before, [t.clone() for t in changed], {storage(t) for t in recorder.outside.values()})
    if not initial:
        put(_after_loop(templates, [], names, live, before, after, trips))
        return
    hidden = {id(t) for t in changed}
    tensors, ints, floats = operands_of(recorder, leaves)
    own_start = {id(t) for t in start}
    tensors = [t for t in tensors if id(t) not in hidden and id(t) not in own_start]
    count = len(initial)

    def enter(arguments: tuple[Any, ...]) -> set[int]:
        mine = list(arguments[:count])
        mine[: len(written)] = [t.clone() if w else t for t, w in zip(mine, written, strict=False)]
        _redirect_floats(floats, arguments[len(arguments) - len(floats) :])
        for outside, inside in zip(changed, mine[count - len(changed) :], strict=True):
            redirect(outside, inside.clone())
        put(_entered(rebuild(templates, mine, names)))
        return {storage(t) for t in arguments if isinstance(t, Tensor)}

    def traced_test(*arguments: Any) -> Tensor:
        avoid = enter(arguments) | {storage(t) for t in tensors}
        with inside_region():
            going = number_tensor(test(), torch.bool)
            return going.clone() if storage(going) in avoid else going

    def traced_body(*arguments: Any) -> tuple[Tensor, ...]:
        avoid = enter(arguments)
        with inside_region():
            body()
            return outputs(templates, tuple(get()), changed, avoid | {storage(t) for t in tensors})

    extra = (*tensors, *ints, *[t for _, t in floats])
    results = list(torch.ops.higher_order.while_loop(traced_test, traced_body, tuple(initial), extra))
    put(_after_loop(templates, results, names, live, before, after, trips))
    for tensor, result in zip(changed, results[count - len(changed) :], strict=True):
        tensor.copy_(result)
    join_results(templates, results, sides)


class NeedsRoom(Exception):
    """Lists grow in a loop, and how often it runs is not known before; they are named."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def _reserve(
    joined: list[Template],
    templates: list[Template],
    names: tuple[str, ...],
    before: tuple[Any, ...],
    after: tuple[Any, ...],
    trips: Trips,
) -> list[Template]:
    """Give each growing list the room it needs: what it holds before the loop, and what every iteration may add."""
    out: list[Template] = []
    lacking: list[str] = []
    for template, known, name, start, end in zip(joined, templates, names, before, after, strict=True):
        if isinstance(template, GrowT) and isinstance(known, GrowT):
            template = GrowT(template.element, known.capacity, template.skeleton)
        elif isinstance(template, GrowT) and not (isinstance(start, GrowingList) and start.reserved):
            held = start.capacity if isinstance(start, GrowingList) else len(start)
            added = end.grown if isinstance(end, GrowingList) else max(0, len(end) - len(start))
            if name in trips.room:
                capacity = held + trips.room[name]
            elif trips.most is not None and not _made_here(added, trips):
                capacity = held + trips.most * added
            else:
                lacking.append(name)
                continue
            template = GrowT(template.element, capacity, template.skeleton)
        out.append(template)
    if lacking:
        raise NeedsRoom(lacking)
    return out


def _made_here(size: Any, trips: Trips) -> bool:
    """Whether a size depends on something computed in the loop body, so that it says nothing before the loop."""
    return isinstance(size, torch.SymInt) and bool(size.node.expr.free_symbols - trips.visible)


def _after_loop(
    templates: list[Template],
    tensors: list[Tensor],
    names: tuple[str, ...],
    live: tuple[str, ...],
    before: tuple[Any, ...],
    after: tuple[Any, ...],
    trips: Trips,
) -> tuple[Any, ...]:
    values = rebuild(templates, tensors, names)
    for value, start, end in zip(values, before, after, strict=True):
        if not isinstance(value, GrowingList) or not isinstance(end, GrowingList):
            continue
        held = start.count if isinstance(start, GrowingList) else len(start)
        room = value.capacity - held
        value.reserved = isinstance(start, GrowingList) and start.reserved
        counted = trips.most is not None and not _made_here(end.grown, trips)
        grown = trips.most * end.grown if counted else room
        value.grown = grown + (start.grown if isinstance(start, GrowingList) else held)
        value.exact = trips.exact and end.exact and (not isinstance(start, GrowingList) or start.exact)
        if trips.exact and end.exact and counted:
            value.count = held + trips.most * end.grown
    return tuple(v if n in live or n.endswith("#") else dead(n) for v, n in zip(values, names, strict=True))


__all__ = ["NumberT", "Poison", "TensorT", "dry_run", "stage_if", "stage_while"]
