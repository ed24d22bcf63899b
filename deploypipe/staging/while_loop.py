"""A condition and a body as one `torch.while_loop`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.aliases import join_results, sources
from deploypipe.staging.context import current
from deploypipe.staging.frame import INDEX, Frame, Values
from deploypipe.staging.growth import (
    AsksForNumber,
    as_known,
    bound_of_user,
    counters_of,
    growth_of,
    most_iterations,
    not_empty,
)
from deploypipe.staging.lists import GrowingList
from deploypipe.staging.packing import number_of, number_tensor
from deploypipe.staging.recorder import Block, Recorder, dry_run
from deploypipe.staging.regions import (
    Operands,
    inside_region,
    leaves_of,
    placeholders,
    rebuild,
    results_of,
    unknown_size,
    unread,
)
from deploypipe.staging.templates import (
    Fixed,
    GrowT,
    LongerT,
    Poison,
    Template,
    TensorT,
    same_template,
    shapes_differ,
    unify,
)
from deploypipe.staging.undefined import Undefined
from deploypipe.torch_compat.dispatch import storage_id
from deploypipe.torch_compat.symbols import all_symbols, sole_symbol, statically_known_true, symbols_in
from deploypipe.torch_compat.tracing import redirect, remember_number, remembered_number, shape_environment

INDEX_TEMPLATE = TensorT(torch.int64, (), torch.device("cpu"))
TURNS = 12
"""Dry runs after which the types of a loop's variables must have settled."""


@dataclass(frozen=True)
class Trips:
    """What is known about a loop before it runs: how often at most, whether exactly so, and room counted for lists."""

    most: Any = None
    exact: bool = False
    room: dict[str, Any] = field(default_factory=dict)
    bounded: bool = False
    """Whether lists get room for as many iterations as the loop's condition allows."""


class NeedsRoom(Exception):
    """Lists grow in a loop, and how often it runs is not known before; they are named."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


@dataclass
class _Loop:
    """A loop that is being staged, and what its dry runs have found out."""

    test: Callable[[], Any]
    body: Block
    frame: Frame
    trips: Trips
    visible: frozenset[Any]
    """The symbols that exist before the loop."""
    before: Values
    templates: list[Template]
    head: Values = ()
    after: Values = ()
    going: Any = None
    """What the condition said in the last dry run."""
    start: list[Tensor] = field(default_factory=list)
    """Tensors that stood for the loop's variables in it."""
    leaves: list[Tensor] = field(default_factory=list)

    def settle(self) -> Recorder:
        """Run dry until the types of all variables are known."""
        for turn in range(TURNS):
            with dry_run() as recorder:
                joined = self._turn(recorder, first=turn == 0)
            if all(same_template(a, b) for a, b in zip(self.templates, joined, strict=True)):
                self.frame.restore(self.before)
                return recorder
            self.templates = joined
        self.frame.restore(self.before)
        raise Unsupported("a loop", "the types of its variables do not settle", "keep each variable's type the same")

    def _turn(self, recorder: Recorder, first: bool) -> list[Template]:
        frame = self.frame
        self.start = placeholders(self.templates)
        for tensor in self.start:
            recorder.makes(tensor)
        join_results(self.templates, self.start, [] if first else [self.after])
        head = self.head = _entered(self.templates, rebuild(self.templates, self.start, frame.names))
        frame.restore_afresh(head)
        self.going = self.test()
        if not isinstance(self.going, bool):
            number_tensor(self.going, torch.bool)  # the recorder must see the sizes that the condition reads
        self.body()
        self.after = frame.save()
        joined = [
            unify(h, a, t, loop=True) if n in frame.carried or n in frame.live else Fixed(Undefined(n))
            for h, a, n, t in zip(head, self.after, frame.names, self.templates, strict=True)
        ]
        joined = self._with_room(self._reserve(joined))
        self.leaves = leaves_of(joined, self.after)
        return joined

    def _reserve(self, joined: list[Template]) -> list[Template]:
        """Give each growing list the room it needs: what it holds before, and what every iteration may add."""
        out: list[Template] = []
        lacking: list[str] = []
        rows = zip(joined, self.templates, self.frame.names, self.before, self.after, strict=True)
        for template, known, name, start, end in rows:
            if isinstance(template, GrowT) and isinstance(known, GrowT) and not known.provisional:
                template = GrowT(template.element, known.capacity, template.skeleton)
            elif isinstance(template, GrowT) and not (isinstance(start, GrowingList) and start.reserved):
                held = start.capacity if isinstance(start, GrowingList) else len(start)
                added = end.grown if isinstance(end, GrowingList) else max(0, len(end) - len(start))
                most = self._most() if self.trips.bounded else self.trips.most
                if most is None and isinstance(known, GrowT):
                    most = bound_of_user()
                if self.trips.bounded and (outside := as_known(added, self.visible)) is not None:
                    added = outside
                if name in self.trips.room:
                    capacity = held + self.trips.room[name]
                elif most is not None and not self._is_made_here(added):
                    capacity = held + most * added
                elif self.trips.bounded and not isinstance(known, GrowT):
                    out.append(GrowT(template.element, unknown_size(), template.skeleton, provisional=True))
                    continue
                else:
                    lacking.append(name)
                    continue
                template = GrowT(template.element, capacity, template.skeleton)
            out.append(template)
        if lacking:
            raise NeedsRoom(lacking)
        return out

    def _with_room(self, joined: list[Template]) -> list[Template]:
        """Give each tensor that gets longer the room for what every iteration may add. How often the loop runs may show
        in the second dry run only, when its counters are no constants any more."""
        if not any(isinstance(template, LongerT) for template in joined):
            return joined
        most = self._most()
        lengths: dict[int, tuple[Any, Any]] = {}
        return [
            self._longer(i, template, most, lengths) if isinstance(template, LongerT) else template
            for i, template in enumerate(joined)
        ]

    def _most(self) -> Any:
        """How often the loop runs at most; None where that is not known, or not yet."""
        if self.trips.most is not None:
            return self.trips.most
        counters = counters_of(self.templates, self.before, self.head, self.after)
        return most_iterations(self.going, counters, self._left_by(), self.visible)

    def _longer(self, i: int, template: LongerT, most: Any, lengths: dict[int, tuple[Any, Any]]) -> Template:
        """`lengths`: of the variables before this one, at the start and after an iteration."""
        known, start, head, end = self.templates[i], self.before[i], self.head[i], self.after[i]
        axis = template.axis
        growth = growth_of(head.shape[axis], end.shape[axis], self.visible) if isinstance(start, Tensor) else None
        if growth is None:
            return shapes_differ(head, end, loop=True)
        again = isinstance(known, LongerT)
        if isinstance(known, LongerT) and not known.provisional:
            room, provisional = known.dims[axis], False
        elif most is not None:
            room, provisional = start.shape[axis] + most * growth, False
        elif not again:
            room, provisional = unknown_size(), True
        elif (bound := bound_of_user()) is not None:
            room, provisional = start.shape[axis] + bound * growth, False
        else:
            return Poison(
                f"gets longer along axis {axis} in each iteration, and the loop does not say how often it runs at most",
                "compare a counter with a limit in its condition (`while n < limit and …`), run over a range, or say "
                "how often it may run: `bound=N`, `--bound N`",
            )
        lengths[i] = start.shape[axis], end.shape[axis]
        return replace(
            template,
            dims=(*template.dims[:axis], room, *template.dims[axis + 1 :]),
            provisional=provisional,
            least=int(not_empty(start.shape[axis])),
            twin=next(j for j, pair in lengths.items() if _alike(pair, lengths[i])),
        )

    def _left_by(self) -> list[Any]:
        """The flags that the condition asks not to be set, as the body leaves them."""
        negated = [each[1] for each in current().negations.values()]
        return [
            end
            for head, end in zip(self.head, self.after, strict=True)
            if isinstance(head, Tensor) and any(head is each for each in negated)
        ]

    def _is_made_here(self, size: Any) -> bool:
        """Whether a size depends on something computed in the body, so that it says nothing before the loop."""
        return isinstance(size, torch.SymInt) and bool(symbols_in(size) - self.visible)

    def values_after(self, tensors: Sequence[Tensor]) -> Values:
        """What the names hold after the loop; a growing list knows by how much it has grown at most."""
        frame, trips = self.frame, self.trips
        values = rebuild(self.templates, tensors, frame.names)
        _check_twins(self.templates, values)
        for value, start, end in zip(values, self.before, self.after, strict=True):
            if not isinstance(value, GrowingList) or not isinstance(end, GrowingList):
                continue
            held = start.count if isinstance(start, GrowingList) else len(start)
            value.reserved = isinstance(start, GrowingList) and start.reserved
            counted = trips.most is not None and not self._is_made_here(end.grown)
            grown = trips.most * end.grown if counted else value.capacity - held
            value.grown = grown + (start.grown if isinstance(start, GrowingList) else held)
            value.exact = trips.exact and end.exact and (not isinstance(start, GrowingList) or start.exact)
            if trips.exact and end.exact and counted:
                value.count = held + trips.most * end.grown
        return tuple(
            v if n in frame.live or n == INDEX else unread(n) for v, n in zip(values, frame.names, strict=True)
        )


def stage_while(
    test: Callable[[], Any],
    body: Block,
    frame: Frame,
    trips: Trips | None = None,
    asked: frozenset[int] = frozenset(),
) -> None:
    """A condition and a body as one `torch.while_loop`; afterwards the names of the frame hold its results."""
    names = frame.names
    before = tuple(v if n in frame.carried else Undefined(n) for v, n in zip(frame.save(), names, strict=True))
    # The index of a `for` is never a constant: what holds for its first value alone must not be looked at.
    templates: list[Template] = [INDEX_TEMPLATE if n == INDEX else Fixed(v) for v, n in zip(before, names, strict=True)]
    visible = all_symbols(shape_environment())
    loop = _Loop(test, body, frame, trips or Trips(), visible, before, templates)
    try:
        recorder = loop.settle()
    except AsksForNumber as asks:
        frame.restore(before)
        if id(asks.tensor) in asked:
            raise Unsupported("a loop", "how often it runs at most depends on what it computes", "") from None
        number_of(asks.tensor)
        stage_while(test, body, frame, trips, asked | {id(asks.tensor)})
        return
    changed = recorder.changed_outside()
    _mark_stale(loop, recorder)
    if loop.going is True:
        raise Unsupported("a loop", "its condition never changes, so it would not end", "")
    if current().dry:
        for tensor in changed:
            tensor.copy_(tensor.clone())
        for leaf in leaves_of(loop.templates, before):
            leaf.clone()
        results = placeholders(loop.templates)
    else:
        _read_before(loop.templates, recorder)
        outside = {storage_id(t) for t in recorder.outside.values()}
        initial = results_of(loop.templates, before, [t.clone() for t in changed], outside)
        if not initial:
            frame.restore(loop.values_after([]))
            return
        results = _traced(loop, initial, recorder, changed)
    frame.restore(loop.values_after(results))
    if not current().dry:
        for tensor, result in zip(changed, results[len(results) - len(changed) :], strict=True):
            tensor.copy_(result)
    join_results(loop.templates, results, [before, loop.after])


def _read_before(templates: Sequence[Template], recorder: Recorder) -> None:
    """Read the numbers of tensors around the loop that the room of a list or a tensor is made of."""
    needed: set[Any] = set()
    for template in templates:
        sizes = (template.capacity,) if isinstance(template, GrowT) else getattr(template, "dims", ())
        needed.update(*(symbols_in(size) for size in sizes if isinstance(size, torch.SymInt)))
    for tensor in list(recorder.outside.values()):
        number = remembered_number(tensor)
        while not symbols_in(number) & needed and (symbol := sole_symbol(number)) in current().read_anew:
            number = current().read_anew[symbol]
        if symbols_in(number) & needed:
            remember_number(tensor, number)
            tensor.item()


def _mark_stale(loop: _Loop, recorder: Recorder) -> None:
    """Eager changes what the loop starts with, where the body changes its variables in place."""
    context = current()
    context.stale.update(recorder.stale)
    groups = [g for t, b in zip(loop.templates, loop.before, strict=True) for g in sources(t, b)]
    for tensor, group in zip(loop.start, groups, strict=True):
        if storage_id(tensor) in recorder.changed:
            context.stale.update({storage_id(source): source for source in group})


def _traced(loop: _Loop, initial: tuple[Tensor, ...], recorder: Recorder, changed: list[Tensor]) -> list[Tensor]:
    written = [storage_id(t) in recorder.changed for t in loop.start]
    everything = Operands.of(recorder, loop.leaves)
    carried = {id(t) for t in [*changed, *loop.start]}
    operands = Operands([t for t in everything.tensors if id(t) not in carried], everything.ints, everything.floats)
    count = len(initial)
    outside = {storage_id(t) for t in operands.tensors}

    def enter(arguments: tuple[Any, ...]) -> set[int]:
        mine = list(arguments[:count])
        mine[: len(written)] = [t.clone() if w else t for t, w in zip(mine, written, strict=False)]
        operands.redirect_floats(arguments)
        for around, inside in zip(changed, mine[count - len(changed) :], strict=True):
            redirect(around, inside.clone())
        loop.frame.restore(_entered(loop.templates, rebuild(loop.templates, mine, loop.frame.names)))
        return outside | {storage_id(t) for t in arguments if isinstance(t, Tensor)}

    def traced_test(*arguments: Any) -> Tensor:
        avoid = enter(arguments)
        with inside_region():
            going = number_tensor(loop.test(), torch.bool)
            return going.clone() if storage_id(going) in avoid else going

    def traced_body(*arguments: Any) -> tuple[Tensor, ...]:
        avoid = enter(arguments)
        with inside_region():
            loop.body()
            return results_of(loop.templates, loop.frame.save(), changed, avoid)

    return list(torch.ops.higher_order.while_loop(traced_test, traced_body, initial, operands.values))


def _alike(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return all(statically_known_true(a == b) for a, b in zip(one, other, strict=True))


def _check_twins(templates: Sequence[Template], values: Values) -> None:
    """What starts with one length and always gets one length has one length throughout."""
    for template, value in zip(templates, values, strict=True):
        if isinstance(template, LongerT) and template.twin is not None and isinstance(value, Tensor):
            twin = values[template.twin]
            its = templates[template.twin]
            if twin is not value and isinstance(its, LongerT) and isinstance(twin, Tensor):
                torch._check(value.shape[template.axis] == twin.shape[its.axis])


def _entered(templates: Sequence[Template], values: Values) -> Values:
    """Growing lists at the start of a loop body: their growth is counted from here."""
    _check_twins(templates, values)
    # Copies, for a list that this loop leaves alone still counts for the loop around it.
    entered = {id(value): value.copy() for value in values if isinstance(value, GrowingList)}
    for copied in entered.values():
        copied.grown, copied.exact, copied.reserved = 0, True, True
    return tuple(entered.get(id(value), value) for value in values)
