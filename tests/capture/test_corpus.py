"""The corpus is itself tested: it builds, it runs, it repeats, and its probes take every path."""

import ast
import copy
import importlib.util
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from comparing import difference
from corpus import CASES, FAMILIES, FIRST_TWELVE, Case
from corpus.refusals import REFUSALS, Refusal
from torch import nn

everyone = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def run(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """One call on copies, so that a module that writes in place cannot spoil the probes."""
    with torch.no_grad():
        return module(*copy.deepcopy(inputs))


@everyone
def test_runs_the_same_twice(case: Case) -> None:
    first, second = case.reference(), case.reference()
    for inputs in [case.example, *case.probes]:
        kept = copy.deepcopy(inputs)
        assert difference(run(first, inputs), run(second, inputs)) is None
        with torch.no_grad():
            first(*inputs)
        assert difference(kept, inputs) is None, "the module writes into its input"


@everyone
def test_probes_vary_every_dynamic_axis(case: Case) -> None:
    names = list(inspect.signature(case.build().forward).parameters)
    for argument, axes in case.dynamic.items():
        position = names.index(argument)
        for axis, symbol in axes.items():
            sizes = {inputs[position].shape[axis] for inputs in case.probes}
            assert len(sizes) > 1, f"{symbol} is always {sizes}"
    for inputs in case.probes:
        assert len(inputs) == len(case.example)
        for position, (probe, example) in enumerate(zip(inputs, case.example, strict=True)):
            assert probe.dtype == example.dtype
            free = case.dynamic.get(names[position], {})
            assert probe.dim() == example.dim()
            for axis in range(probe.dim()):
                assert axis in free or probe.shape[axis] == example.shape[axis], f"axis {axis} is not declared dynamic"


def test_the_first_twelve_come_first() -> None:
    assert tuple(CASES)[:12] == FIRST_TWELVE
    assert len(CASES) >= 72
    assert all(case.form for case in CASES.values())


class Watched(ast.NodeTransformer):
    """Wraps every condition in `__truth__(line, value)` and every loop in `__count__(line, values)`."""

    def __init__(self, fixed: set[int]) -> None:
        self.fixed = fixed

    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = [self.visit(s) if isinstance(s, ast.ClassDef | ast.FunctionDef) else s for s in node.body]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Methods only: what runs at import or in `__init__` is not control flow of the model."""
        node.body = [s if getattr(s, "name", "") == "__init__" else self.visit(s) for s in node.body]
        return node

    def call(self, name: str, node: ast.expr) -> ast.expr:
        if node.lineno in self.fixed:
            return node
        watched = ast.Call(ast.Name(name, ast.Load()), [ast.Constant(node.lineno), node], [])
        return ast.fix_missing_locations(ast.copy_location(watched, node))

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.body[0], ast.Raise):
            node.test = self.call("__truth__", node.test)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        node.test = self.call("__truth__", node.test)
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        self.generic_visit(node)
        node.test = self.call("__truth__", node.test)
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        node.iter = self.call("__count__", node.iter)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        node.iter = self.call("__count__", node.iter)
        node.ifs = [self.call("__truth__", test) for test in node.ifs]
        return node


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__.rpartition(".")[2])
def test_probes_take_every_path(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every condition was seen true and false, and every loop over something dynamic ran more than once.

    The family's file is executed again under another name with its conditions watched, its cases run, and the record
    compared with the list of conditions in the file. A condition that cannot change is marked `# fixed`.
    """
    path = Path(family.__file__)
    source = path.read_text(encoding="utf-8")
    fixed = {number for number, line in enumerate(source.splitlines(), 1) if "# fixed" in line}
    tree = Watched(fixed).visit(ast.parse(source))
    conditions = {
        ast.literal_eval(call.args[0]): call.func.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("__truth__", "__count__")
    }
    truths: dict[int, set[bool]] = defaultdict(set)
    counts: dict[int, set[int]] = defaultdict(set)

    def truth(line: int, value: Any) -> Any:
        truths[line].add(bool(value))
        return value

    def count(line: int, values: Iterable[Any]) -> Iterator[Any]:
        rounds = 0
        try:
            for value in values:
                rounds += 1
                yield value
        finally:
            counts[line].add(rounds)

    for case in _load_watched(family, tree, truth, count, monkeypatch):
        module = case.reference()
        for inputs in case.probes:
            run(module, inputs)

    missed = []
    for line, kind in sorted(conditions.items()):
        if kind == "__truth__" and truths[line] != {True, False}:
            missed.append(f"{path.name}:{line}: only {truths[line] or 'never reached'}")
        if kind == "__count__" and (len(counts[line]) < 2 or max(counts[line]) < 2):
            missed.append(f"{path.name}:{line}: ran {sorted(counts[line])} times")
    assert not missed, "\n".join(missed)


def _load_watched(
    family: Any,
    tree: ast.Module,
    truth: Callable[[int, Any], Any],
    count: Callable[[int, Iterable[Any]], Iterator[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> list[Case]:
    """The cases of the watched copy of a family; the corpus keeps its own."""
    case_file = sys.modules["corpus._case"]
    watched: dict[str, Case] = {}
    monkeypatch.setattr(case_file, "CASES", watched)
    name = family.__name__ + "_watched"
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    module.__package__ = family.__package__
    module.__dict__.update(__truth__=truth, __count__=count)
    exec(compile(tree, family.__file__, "exec"), module.__dict__)
    return list(watched.values())


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals_run_in_eager_and_mark_their_line(refused: Refusal) -> None:
    module = refused.build()
    for inputs in [refused.example, *refused.probes]:
        run(module, inputs)
    assert refused.says and refused.why
    assert bool(refused.lines) == (refused.name != "no_source")


@dataclass
class Record:
    a: torch.Tensor
    b: int


class Named(NamedTuple):
    a: torch.Tensor
    b: int


ONE, TWO = torch.tensor(1), torch.tensor(2)
VALUES = {"a": torch.zeros(2), "b": 1}


@pytest.mark.parametrize(
    ("expected", "actual", "says"),
    [
        pytest.param(torch.zeros(2), torch.zeros(2) + 1e-6, None, id="rounding"),
        pytest.param(torch.zeros(2), torch.ones(2), "values differ", id="values"),
        pytest.param(torch.zeros(2), torch.zeros(2, 1), "shape", id="shape"),
        pytest.param(torch.zeros(2), torch.zeros(2).double(), "dtype", id="dtype"),
        pytest.param(torch.tensor(float("nan")), torch.tensor(float("nan")), None, id="nan-in-place"),
        pytest.param(torch.tensor(float("nan")), torch.tensor(0.0), "values differ", id="nan-lost"),
        pytest.param(1, ONE, None, id="number-as-tensor"),
        pytest.param(1, torch.tensor(1.0), "dtype", id="number-of-another-kind"),
        pytest.param((ONE, TWO), [ONE, TWO], None, id="tuple-as-list"),
        pytest.param((ONE, TWO), (TWO, ONE), "values differ", id="swapped"),
        pytest.param((ONE, TWO), (ONE,), "2 values", id="missing"),
        pytest.param({"a": ONE, "b": TWO}, {"b": TWO, "a": ONE}, None, id="dict-order"),
        pytest.param({"a": ONE}, {"c": ONE}, "keys", id="dict-keys"),
        pytest.param({"a": ONE}, [ONE], "a dict expected", id="dict-as-list"),
        pytest.param(Record(**VALUES), VALUES, None, id="dataclass-as-dict"),
        pytest.param(Record(**VALUES), list(VALUES.values()), None, id="dataclass-as-list"),
        pytest.param(Record(**VALUES), Record(**VALUES), None, id="dataclass"),
        pytest.param(Named(**VALUES), VALUES, None, id="named-tuple-as-dict"),
        pytest.param(Named(**VALUES), tuple(VALUES.values()), None, id="named-tuple-as-tuple"),
        pytest.param([ONE], ONE, "a list expected", id="list-as-tensor"),
    ],
)
def test_difference(expected: Any, actual: Any, says: str | None) -> None:
    found = difference(expected, actual)
    assert found is None if says is None else says in str(found)
