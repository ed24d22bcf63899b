"""Where an artifact departs from eager: the first operator whose result is none of eager's.

The artifact may be anybody's file, so nothing is known of how its nodes came from the module. Both sides run on the
same inputs, every intermediate result is kept, and the artifact's are looked up among eager's by value.

A result that is not found need not be wrong: exporters split operators, and fuse them. So the search starts at the
wrong output and walks back, from each node to those it reads from, through what is not found; what is found ends it.
Where the walk ends is the culprit: a node that departs though all that it reads is right. The same walk through eager's
operators, looked up among the artifact's results, ends at the operator that should be there.
"""

import math
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from deploypipe.eager import flat_tensors, reference_copy
from deploypipe.formats.inspection import Inspection, Node
from deploypipe.parity.matching import Found, Pool, apart, is_distinctive
from deploypipe.parity.recording import INPUT, Recording, record
from deploypipe.parity.verdict import Culprit

FEWEST, MOST = 16.0, 80.0
"""How far apart two results of one operator may be, in units of rounding relative to the largest value: for float32
2e-6 and 1e-5. Sums of some thousand terms in another order, and polynomials for `erf`, stay below the first."""
AGREEING = 16.0
"""Outputs this close agree: there is nothing to locate."""

SHAPE_OPERATORS = frozenset((
    "Shape", "Size", "aten.sym_size.int", "aten.sym_numel.default", "aten::size", "aten::sym_size", "aten::numel",
    "aten::len", "aten::dim", "aten::is_floating_point", "prim::dtype", "prim::device", "prim::layout",
))  # fmt: skip
"""They read what a tensor is like, and none of its values."""
UNPACKING = frozenset(
    ("getitem", "prim::TupleUnpack", "prim::ListUnpack", "prim::TupleIndex", "aten::__getitem__", "SequenceAt")
)
"""They take one of the results of another node, which is shown in none of its own."""

KINDS = {"permute": "transpose", "t": "transpose", "clamp": "clip", "gemm": "addmm", "linear": "addmm"}
"""Other names of one operator."""


def locate(module: nn.Module, inspection: Inspection, inputs: tuple[Tensor, ...]) -> Culprit | None:
    """The first operator of the artifact whose result for `inputs` is not the eager `module`'s. None where the outputs
    agree, and where the place is not found. Never raises: the place is only a help, and a failure to find it must not
    hide that the outputs differ."""
    try:
        eager = record(reference_copy(module), inputs)
        return _Search(eager, _Graph(inspection, inputs)).culprit()
    except Exception:
        return None


class _Graph:
    """The artifact's nodes, by their indices, and what flows between them."""

    def __init__(self, inspection: Inspection, inputs: Sequence[Tensor]) -> None:
        self.nodes = inspection.nodes
        self.values = dict(inspection.values(inputs))
        made = {name: index for index, node in enumerate(self.nodes) for name in node.outputs if name}
        read = {name for node in self.nodes for name in node.inputs if name}
        self.outputs = list(inspection.returned)
        while packed := [name for name in self.outputs if name in made and self._packs(made[name])]:
            at = self.outputs.index(packed[0])
            self.outputs[at : at + 1] = [name for name in self.nodes[made[packed[0]]].inputs if name]
        self.makers_of_outputs = [made.get(name) for name in self.outputs]
        self.used = read | set(self.outputs)
        given = {spec.name for spec in inspection.inputs} or read - made.keys() - inspection.constants.keys()
        self.moving = set(given)
        """The values that depend on those of the inputs; the others are weights, constants and sizes."""
        self.makers: list[list[int]] = []
        """The nodes that a node reads from, but for sizes."""
        for node in self.nodes:
            moves = node.operator not in SHAPE_OPERATORS and not self.moving.isdisjoint(node.inputs)
            self.moving.update(node.outputs if moves else ())
            self.makers.append([made[name] for name in node.inputs if name in made and name in self.moving and moves])

    def unpacked(self, index: int) -> int:
        """The node whose result this one takes apart, or itself."""
        while self.nodes[index].operator in UNPACKING and self.makers[index]:
            index = self.makers[index][0]
        return index

    def _packs(self, index: int) -> bool:
        return self.nodes[index].operator in ("prim::TupleConstruct", "prim::ListConstruct", "prim::DictConstruct")


class _Search:
    """One artifact beside one recording of eager."""

    def __init__(self, eager: Recording, graph: _Graph) -> None:
        self.eager, self.graph = eager, graph
        distances = [
            apart(graph.values[name], expected) if name in graph.values else math.inf
            for name, expected in zip(graph.outputs, eager.outputs, strict=False)
        ]
        self.wrong = [i for i, distance in enumerate(distances) if distance > AGREEING]
        # A small difference must be distinguished from rounding, a large one from the smaller ones that lead up to it.
        self.allowed = min(max(max(distances, default=0.0) / 100, FEWEST), MOST)
        self.found: dict[str, Found] = {}
        self.distinctive: set[str] = set()

    def culprit(self) -> Culprit | None:
        if not self.wrong:
            return None
        self._look_up((i, value) for i, step in enumerate(self.eager.steps) for value in step.values)
        node, step = self._first(exactly=False)
        # Exporters choose layouts, so to lay numbers out anew is a departure only where that is what eager does there,
        # or where nothing takes account of it; an operator that computes lays its result out as eager's does.
        other, instead = self._first(exactly=True)
        if other is not None and instead is not None:
            idle = self._idle(other, instead)
            about_layout = (
                self.eager.steps[instead].is_view
                or not self._only_lays_out(self.graph.nodes[other])
                or self._does_its_part(node, step)
            )
            if idle != other or (about_layout and (node is None or other < node)):
                return self._culprit(idle, instead)
        if node is not None and step is not None:
            if _kind(self.graph.nodes[node].operator) != _kind(self.eager.steps[step].operator):
                # Where the artifact has several operators for one of eager's, each has its place in that one's parts.
                self._look_up((step, value) for value in self.eager.parts(step))
                node = next(iter(self._departing_nodes(exactly=False)), node)
            node = self._idle(node, step)
        return self._culprit(node, step)

    def _look_up(self, results: Iterable[tuple[int, Tensor]]) -> None:
        """Find the artifact's values that are not found yet among `results`."""
        pool = Pool(self.allowed)
        for step, value in results:
            pool.add(step, value)
        for name in self.graph.moving:
            if name in self.graph.values and not self.found.get(name):
                value = self.graph.values[name]
                self.found[name] = pool.find(value)
                if self.found[name] and is_distinctive(value):
                    self.distinctive.add(name)

    def _first(self, exactly: bool) -> tuple[int | None, int | None]:
        """The first node that departs, and eager's operator at that place: the first that is missing, of those that
        read what the node reads if there are such."""
        node = next(iter(self._departing_nodes(exactly)), None)
        ends = self._missing_steps(exactly)
        given = self._steps_of(self.graph.nodes[node].inputs) if node is not None else set()
        # An operator that only decides between branches is not reached by walking back from an output.
        for steps in (ends, sorted(self._missing(exactly))):
            for step in steps:
                if self.eager.steps[step].reads & given:
                    return node, step
        return node, next(iter(ends), None)

    def _departing_nodes(self, exactly: bool) -> list[int]:
        graph = self.graph
        read = {source for step in self._missing(exactly) for source in self.eager.steps[step].reads}
        right = [self._is_right(node, exactly, read) for node in graph.nodes]
        return _ends(graph.makers, right, [graph.makers_of_outputs[i] for i in self.wrong])

    def _is_right(self, node: Node, exactly: bool, read: set[int]) -> bool | None:
        """Whether what a node computes is among eager's results; None where that says nothing, or nothing is seen.
        `read` is what eager's missing operators read."""
        found = {name: self.found[name] for name in node.outputs if name in self.found and name in self.graph.used}
        if not all(item.exactly if exactly else item for item in found.values()):
            # A counter or a condition that eager leaves to Python is none of its results, either.
            distinctive = any(is_distinctive(self.graph.values[name]) for name in found)
            return False if distinctive or self._steps_of(node.inputs) & read else None
        return True if self.distinctive.intersection(found) else None

    def _idle(self, node: int, step: int) -> int:
        """Instead of the first node that departs, the one before it, if that does nothing here, and is called as what
        eager does there: a transposition that keeps the order, a leaky ReLU with a slope of 1."""
        for maker in self.graph.makers[node]:
            idle = self.graph.nodes[maker]
            exactly = [self._steps_of(names, exactly=True) for names in (idle.inputs, idle.outputs)]
            if _kind(idle.operator) == _kind(self.eager.steps[step].operator) and exactly[0] & exactly[1]:
                return maker
        return node

    def _does_its_part(self, node: int | None, step: int | None) -> bool:
        """Whether eager's operator, given what the node reads in its layout, returns what the node does: then it is
        the layout that is wrong."""
        call = self.eager.steps[step].call if step is not None else None
        if node is None or step is None or call is None:
            return False
        function, arguments, options = call
        replaced = list(arguments)
        for name in self.graph.nodes[node].inputs:
            found = self.found.get(name, Found())
            for position, argument in enumerate(arguments):
                sources = [value for source in found.laid_out for value in self.eager.steps[source].values]
                if any(argument is value for value in sources) and argument.shape == self.graph.values[name].shape:
                    replaced[position] = self.graph.values[name].to(argument.dtype)
        if all(new is old for new, old in zip(replaced, arguments, strict=True)):
            return False
        pool = Pool(self.allowed)
        with torch.no_grad():
            pool.add(step, next(iter(flat_tensors(function(*replaced, **options))[0])))
        return any(pool.find(self.graph.values[name]) for name in self.graph.nodes[node].outputs if name in self.found)

    def _only_lays_out(self, node: Node) -> bool:
        return not self._steps_of(node.inputs).isdisjoint(self._steps_of(node.outputs))

    def _missing_steps(self, exactly: bool) -> list[int]:
        """Where the walk through eager's operators ends."""
        steps, missing, distinctive = (
            self.eager.steps,
            self._missing(exactly),
            self._steps_of(self.distinctive, exactly),
        )
        right = [
            False if i in missing else i in distinctive or not step.from_inputs or None for i, step in enumerate(steps)
        ]
        return _ends([step.reads for step in steps], right, [self.eager.origins[i] for i in self.wrong])

    def _missing(self, exactly: bool) -> set[int]:
        """Eager's operators whose results are not in the artifact."""
        there = self._steps_of(self.found, exactly)
        return {i for i, step in enumerate(self.eager.steps) if step.from_inputs and i not in there}

    def _steps_of(self, names: Iterable[str], exactly: bool = False) -> set[int]:
        """The steps whose results these values are."""
        found = [self.found[name] for name in names if name in self.found]
        return {step for item in found for step in (item.exactly if exactly else item.exactly | item.laid_out)}

    def _culprit(self, index: int | None, step: int | None) -> Culprit:
        graph, steps = self.graph, self.eager.steps
        if index is None:
            # All is eager's, and yet the output is not: it is another of its results than the one that is due.
            index = graph.makers_of_outputs[self.wrong[0]]
            step = step if step is not None else self.eager.origins[self.wrong[0]]
        if index is None:
            name = graph.outputs[self.wrong[0]]
            node = Node(name, "", (), (name,))
        else:
            node = graph.nodes[graph.unpacked(index)]
        # What eager does not do has its place after what it reads.
        place = step if step is not None else max(self._steps_of(node.inputs), default=0)
        known = steps[place].operator != INPUT
        return Culprit(
            node.name,
            node.operator,
            steps[place].module if known else node.module,
            (steps[place].source if known else "") or node.source,
            steps[step].operator if step is not None else "",
            self._difference(graph.nodes[index].outputs if index is not None else node.outputs, step),
        )

    def _difference(self, names: Sequence[str], step: int | None) -> float:
        """From the result of eager's operator, or, where the node stands for several, of the last of them: that of a
        later one, if it is much closer."""
        here, *later = [
            (self.graph.values[name].double() - expected.double()).abs().max().item()
            for place in (range(step, len(self.eager.steps)) if step is not None else ())
            for expected in self.eager.steps[place].values
            for name in names
            if name in self.graph.values and self.graph.values[name].shape == expected.shape and expected.numel()
        ] or [math.nan]
        closest = min(later, default=here)
        return closest if closest < here / 10 else here


def _kind(operator: str) -> str:
    """ "LeakyRelu", "aten.leaky_relu.default" and "aten::leaky_relu" → "leakyrelu"."""
    name = re.split(r"::|\.", operator)
    plain = (name[1] if len(name) > 1 else name[0]).lower().replace("normalization", "norm")
    plain = plain.replace("native_", "").replace("_", "")
    return KINDS.get(plain, plain)


def _ends(parents: Sequence[Iterable[int]], right: Sequence[bool | None], starts: Iterable[int | None]) -> list[int]:
    """Walk back from `starts`, from each index to its parents (which are smaller), as long as they are not right:
    the wrong ones at which that ends, in order. What is neither right nor wrong is passed through."""
    walked: set[int] = set()
    todo = [index for index in starts if index is not None]
    while todo:
        index = todo.pop()
        if index not in walked and not right[index]:
            walked.add(index)
            todo += parents[index]
    ends: list[int] = []
    after_wrong: set[int] = set()
    for index in sorted(walked):
        if not after_wrong.isdisjoint(parents[index]):
            after_wrong.add(index)
        elif right[index] is False:
            after_wrong.add(index)
            ends.append(index)
    return ends
