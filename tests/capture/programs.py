"""A hypothesis strategy for small random modules whose control flow depends on values and sizes.

A program is source text, written to a file so that `inspect` finds it, and imported. Every program terminates: a
`while` carries a counter. Every tensor variable has the shape of `x` (`[batch, 4]`) and is bounded by the last
operation of its assignment, so values neither overflow nor drift apart by rounding. What varies is the control flow:
which statements nest in which, what is assigned where, what jumps out, and what kind of thing the state is.
"""

import importlib.util
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

WIDTH = 4
SIZE = 9
"""How many statements one function has, about; more makes a program take a minute, and finds no more."""
DEPTH = 3
"""How deep statements nest."""

_folder = tempfile.TemporaryDirectory(prefix="deploypipe-programs-")


@dataclass(frozen=True)
class Program:
    """One generated module, ready to export."""

    source: str
    module: nn.Module
    example: tuple[Tensor, ...]
    probes: list[tuple[Tensor, ...]]
    dynamic: dict[str, dict[int, str]]

    def __repr__(self) -> str:
        return f"Program(example of {tuple(self.example[0].shape)}, n={int(self.example[1])})\n{self.source}"


@dataclass(frozen=True)
class Scope:
    """The names a statement may read, by kind, and where it stands."""

    tensors: tuple[str, ...] = ("x",)
    ints: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    """Loop counters, which only the loop may write."""
    helpers: tuple[str, ...] = ()
    depth: int = 0
    in_loop: bool = False
    result: str = "tensor"

    def inner(self, **changes: Any) -> "Scope":
        return replace(self, depth=self.depth + 1, **changes)

    def common(self, *others: "Scope") -> "Scope":
        """What exists whichever of these scopes was the one that ran."""

        def shared(kind: str) -> tuple[str, ...]:
            names = getattr(self, kind)
            return tuple(n for n in names if all(n in getattr(o, kind) for o in others))

        changes: dict[str, Any] = {kind: shared(kind) for kind in ("tensors", "ints", "floats", "flags", "lists")}
        return replace(self, **changes)


class Writer:
    """Draws statements and expressions; every random choice is a hypothesis draw, so failures shrink."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.fresh = 0
        self.budget = SIZE
        """How many more statements may be written."""

    def pick(self, options: Sequence[str]) -> str:
        return self.draw(st.sampled_from(options))

    def often(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) < percent

    def name(self, kind: str) -> str:
        self.fresh += 1
        return f"{kind}{self.fresh}"

    # -- expressions ------------------------------------------------------------------------------------------------

    def number(self) -> str:
        return self.pick(["-1.5", "-0.5", "-0.1", "0.0", "0.2", "0.7", "1.3"])

    def integer(self, scope: Scope) -> str:
        options = ["2", "3"]
        for k in scope.ints:
            options += [k, f"{k} + 1", f"{k} * 2", f"({k} - 3) % 5", f"{k} // 2", f"-{k} // 2", f"max({k} - 1, 0)"]
        options += ["int(n)", "x.shape[0]", "n.item() - 1"]
        return self.pick(options)

    def floating(self, scope: Scope) -> str:
        t = self.pick(scope.tensors)
        options = ["0.5", "-1.25", f"float({t}.mean())", f"{t}.max().item()"]
        for f in scope.floats:
            options += [f, f"{f} * 0.5 + 0.1", f"min({f}, 0.3)", f"abs({f})"]
        return self.pick(options)

    def condition(self, scope: Scope, nesting: int = 0) -> str:
        t = self.pick(scope.tensors)
        c = self.number()
        options = [
            f"{t}.sum() > {c}",
            f"{t}.mean() < {c}",
            f"{t}.abs().max() >= {c}",
            f"({t} > {c}).any()",
            f"({t} < {c}).all()",
            f"{t}.mean().item() > {c}",
            f"-0.4 < {t}.mean() < {c}",
            "x.shape[0] > 2",
            "n > 1",
            "int(n) % 2 == 0",
        ]
        for k in scope.ints:
            options += [f"{k} > 2", f"{k} % 2 == 1", f"0 <= {k} < 3"]
        options += [f"{f} > 0.2" for f in scope.floats]
        options += [name for f in scope.flags for name in (f, f"not {f}")]
        options += [f"{row}.sum() > {c}" for row in scope.rows]
        options += [f"len({items}) > 2" for items in scope.lists]
        if nesting < 2 and self.often(25):
            a, b = self.condition(scope, nesting + 1), self.condition(scope, nesting + 1)
            return self.pick([f"({a}) and ({b})", f"({a}) or ({b})", f"not ({a})"])
        return self.pick(options)

    def tensor(self, scope: Scope, nesting: int = 0) -> str:
        """An expression of shape `[batch, 4]`."""
        t = self.pick(scope.tensors)
        c = self.number()
        options = [f"{t} + {c}", f"{t} * {c}", f"self.layer({t})", f"{t} - {t}.mean(dim=0)", f"{t}.flip(1)", f"-{t}"]
        options += [f"torch.where({t} > {c}, {t}, {c} * x)", f"{t} * n", f"{t}.abs()"]
        options += [f"{t} * {k}" for k in scope.ints] + [f"{t} + {f}" for f in scope.floats]
        options += [f"{t} * {f}" for f in scope.flags if not f.startswith("flag")]
        options += [f"{t} + {row}" for row in scope.rows]
        options += [f"{items}[-1] + {t}" for items in scope.lists]
        options += [f"{helper}({t})" for helper in scope.helpers]
        if nesting < 1:
            options += [f"{t} + ({self.tensor(scope, 1)})"]
            if self.often(15):
                return f"({self.tensor(scope, 1)} if {self.condition(scope, 1)} else {self.tensor(scope, 1)})"
        return self.pick(options)

    def bounded(self, scope: Scope) -> str:
        return self.pick(["torch.tanh({})", "torch.sin({})", "({}).clamp(-2, 2)"]).format(self.tensor(scope))

    # -- statements -------------------------------------------------------------------------------------------------

    def block(self, scope: Scope, compound_first: bool = False) -> tuple[list[str], Scope]:
        """Lines, unindented, and the scope after them."""
        lines: list[str] = []
        count = self.draw(st.integers(1, 3))
        for position in range(count):
            if self.budget <= 0 and lines:
                break
            self.budget -= 1
            new, scope = self.statement(scope, compound_first and position == 0)
            lines += new
        return lines, scope

    def statement(self, scope: Scope, compound: bool = False) -> tuple[list[str], Scope]:
        simple = [self.assign_tensor, self.assign_tensor, self.assign_number, self.assign_flag]
        if scope.lists:
            simple.append(self.append)
        nested = [self.branch, self.branch, self.for_loop, self.for_loop, self.while_loop]
        if scope.in_loop:
            nested += [self.jump, self.jump]
        if scope.depth and not compound:
            nested.append(self.early_return)
        if scope.depth >= DEPTH or self.budget <= 0:
            nested = []
        options = nested if compound else simple + nested
        return self.draw(st.sampled_from(options))(scope)

    def assign_tensor(self, scope: Scope) -> tuple[list[str], Scope]:
        value = self.bounded(scope)
        if self.often(20) and len(scope.tensors) > 1:
            a, b = self.pick(scope.tensors), self.pick(scope.tensors)
            if a != b:
                return [f"{a}, {b} = {b}, {value}"], scope
        if self.often(10):
            # Two names for one tensor: what is written through one is read through the other.
            t, alias = self.pick(scope.tensors), self.name("t")
            scope = replace(scope, tensors=(*scope.tensors, alias))
            return [f"{alias} = {t}", f"{alias} {self.pick(['+=', '*='])} {self.number()}"], scope
        if self.often(15):
            t = self.pick(scope.tensors)
            return [f"{t} = {t}.clone()", f"{t} {self.pick(['+=', '-=', '*='])} {self.number()}"], scope
        if self.often(30):
            t = self.name("t")
            return [f"{t} = {value}"], replace(scope, tensors=(*scope.tensors, t))
        return [f"{self.pick(scope.tensors)} = {value}"], scope

    def assign_number(self, scope: Scope) -> tuple[list[str], Scope]:
        free = [k for k in scope.ints if k not in scope.frozen]
        if self.often(60):
            if free and self.often(60):
                k = self.pick(free)
                return [
                    self.pick([f"{k} += 1", f"{k} = ({k} * 2 + 1) % 7", f"{k} -= 2", f"{k} = {self.integer(scope)}"])
                ], scope
            k = self.name("k")
            return [f"{k} = {self.integer(scope)}"], replace(scope, ints=(*scope.ints, k))
        if scope.floats and self.often(60):
            f = self.pick(scope.floats)
            return [self.pick([f"{f} *= 0.5", f"{f} = {self.floating(scope)}"])], scope
        f = self.name("f")
        return [f"{f} = {self.floating(scope)}"], replace(scope, floats=(*scope.floats, f))

    def assign_flag(self, scope: Scope) -> tuple[list[str], Scope]:
        python_flags = [f for f in scope.flags if f.startswith("flag")]
        if python_flags and self.often(50):
            f = self.pick(python_flags)
            return [self.pick([f"{f} = not {f}", f"{f} = True", f"{f} = bool({self.condition(scope, 2)})"])], scope
        if self.often(60):
            f = self.name("flag")
            return [f"{f} = {self.pick(['False', 'True'])}"], replace(scope, flags=(*scope.flags, f))
        f = self.name("mask")
        t = self.pick(scope.tensors)
        return [f"{f} = {t}.sum() > {self.number()}"], replace(scope, flags=(*scope.flags, f))

    def append(self, scope: Scope) -> tuple[list[str], Scope]:
        return [f"{self.pick(scope.lists)}.append({self.bounded(scope)})"], scope

    def branch(self, scope: Scope) -> tuple[list[str], Scope]:
        lines = [f"if {self.condition(scope)}:"]
        body, after = self.block(scope.inner())
        lines += indented(body)
        # A scope whose block jumped away says nothing about what exists afterwards, but keeping to what both
        # have is safe either way.
        ends = [after]
        if self.often(30):
            lines.append(f"elif {self.condition(scope)}:")
            body, after = self.block(scope.inner())
            lines += indented(body)
            ends.append(after)
        if self.often(60):
            lines.append("else:")
            body, after = self.block(scope.inner())
            lines += indented(body)
            ends.append(after)
            known = ends[0].common(*ends[1:])
            return lines, replace(known, depth=scope.depth, in_loop=scope.in_loop)
        return lines, scope

    def for_loop(self, scope: Scope) -> tuple[list[str], Scope]:
        i = self.name("i")
        inner = scope.inner(in_loop=True, ints=(*scope.ints, i), frozen=(*scope.frozen, i))
        header = self.pick(
            [
                f"for {i} in range(int(n)):",
                f"for {i} in range(n.item()):",
                f"for {i} in range(x.shape[0]):",
                f"for {i} in reversed(range(int(n))):",
                f"for {i} in range(1, int(n) + 1, 2):",
                f"for {i} in range(x.shape[0] - 1, -1, -1):",
                f"for {i} in range(3):",
                "rows",
                "enumerate",
            ]
        )
        if header in ("rows", "enumerate"):
            row = self.name("row")
            source = self.pick(scope.tensors)
            inner = replace(inner, rows=(*scope.rows, row))
            if header == "rows":
                inner = replace(inner, ints=scope.ints)
                header = f"for {row} in {source}:"
            else:
                header = f"for {i}, {row} in enumerate({source}):"
        body, _ = self.block(inner)
        return [header, *indented(body)], scope

    def while_loop(self, scope: Scope) -> tuple[list[str], Scope]:
        k = self.name("k")
        inner = scope.inner(in_loop=True, ints=(*scope.ints, k), frozen=(*scope.frozen, k))
        shape = self.pick(["guarded", "counted", "forever"])
        # The counter goes up first, so that a `continue` cannot make the loop endless.
        if shape == "guarded":
            body, _ = self.block(inner)
            head = f"while ({self.condition(replace(scope, ints=(*scope.ints, k)))}) and {k} < 4:"
            lines = [f"{k} = 0", head, *indented([f"{k} += 1", *body])]
        elif shape == "counted":
            body, _ = self.block(inner)
            lines = [f"{k} = 0", f"while {k} < n:", *indented([f"{k} += 1", *body])]
        else:
            stop = self.condition(inner)
            body, _ = self.block(inner)
            way_out = [f"if {k} > 3 or ({stop}):", "    break"]
            lines = [f"{k} = 0", "while True:", *indented([f"{k} += 1", *way_out, *body])]
        return lines, replace(scope, ints=(*scope.ints, k), frozen=(*scope.frozen, k))

    def jump(self, scope: Scope) -> tuple[list[str], Scope]:
        return [f"if {self.condition(scope)}:", f"    {self.pick(['break', 'continue'])}"], scope

    def early_return(self, scope: Scope) -> tuple[list[str], Scope]:
        return [f"if {self.condition(scope)}:", f"    {self.result(scope)}"], scope

    def result(self, scope: Scope) -> str:
        first, second = self.bounded(scope), self.bounded(scope)
        return {
            "tensor": f"return {first}",
            "tuple": f"return {first}, {second}",
            "dict": f"return {{'a': {first}, 'b': {second}}}",
        }[scope.result]

    # -- the module -------------------------------------------------------------------------------------------------

    def function(self, header: str, scope: Scope, first_lines: list[str]) -> list[str]:
        body, after = self.block(scope, compound_first=True)
        more, after = self.block(after)
        more += self.gather(after)
        ending = [self.result(after)]
        if after.lists and scope.result == "tensor":
            items = after.lists[0]
            ending = [
                self.pick(
                    [f"return torch.stack({items}).sum(dim=0)", f"return torch.cat({items}, dim=0)[:4]", ending[0]]
                )
            ]
        return [header, *indented([*first_lines, *body, *more, *ending])]

    def gather(self, scope: Scope) -> list[str]:
        """Folds every variable into `x`, so that a wrong value anywhere shows in the output."""
        terms = [f"0.5 * {t}" for t in scope.tensors if t != "x"]
        terms += [f"0.1 * {k}" for k in scope.ints] + [f"0.3 * {f}" for f in scope.floats]
        terms += [f"(0.7 if {f} else 0.2)" for f in scope.flags]
        terms += [f"0.1 * len({items}) + {items}[-1]" for items in scope.lists]
        return [f"x = torch.sin(x + {' + '.join(terms)})"] if terms else []

    def source(self) -> str:
        helpers: list[str] = []
        known: tuple[str, ...] = ()
        if self.often(50):
            self.budget = 4
            method = self.function("def helper(self, x, n=torch.tensor(2)):", Scope(depth=1), ["x = x * 1.0"])
            helpers = ["", *indented(method)]
            known = ("self.helper",)
        self.budget = SIZE
        result = self.pick(["tensor", "tensor", "tuple", "dict"])
        scope = Scope(helpers=known, result=result)
        first = ["x = x * 1.0"]  # a tensor of its own: the caller's is never written
        if self.often(40):
            first += ["items = [x]"]
            scope = replace(scope, lists=("items",))
        if self.often(60):
            first += ["k0 = 0"]
            scope = replace(scope, ints=("k0",))
        forward = self.function("def forward(self, x, n):", scope, first)
        return "\n".join(
            [
                "import torch",
                "from torch import nn",
                "",
                "",
                "class Generated(nn.Module):",
                "    def __init__(self):",
                "        super().__init__()",
                f"        self.layer = nn.Linear({WIDTH}, {WIDTH})",
                *helpers,
                "",
                *indented(forward),
                "",
            ]
        )


def indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]


_numbers = itertools.count(1)


def build(source: str) -> nn.Module:
    """Write the source to a file and import it from there, so that its lines can be read back."""
    name = f"generated_{next(_numbers)}"
    path = Path(_folder.name) / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    imported = importlib.util.module_from_spec(spec)
    sys.modules[name] = imported
    spec.loader.exec_module(imported)
    torch.manual_seed(0)
    module = imported.Generated()
    assert isinstance(module, nn.Module)
    return module.eval()


def inputs(batch: int, n: int, seed: int, scale: float) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, WIDTH, generator=generator) * scale + scale / 3, torch.tensor(n)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A program with an example, and probes that vary the batch, the count, the sign and the size of the values."""
    source = Writer(draw).source()
    seed = draw(st.integers(0, 1000))
    example = inputs(draw(st.integers(1, 3)), draw(st.integers(0, 3)), seed, 1.0)
    shapes = [(1, 0), (1, 3), (2, 1), (3, 2), (4, 4), (5, 3), (2, 0), (3, 1)]
    scales = [1.0, -1.0, 0.1, -0.5, 2.0, -3.0, 0.5, 0.0]
    probes = [inputs(b, n, seed + j + 1, s) for j, ((b, n), s) in enumerate(zip(shapes, scales, strict=True))]
    return Program(source, build(source), example, probes, {"x": {0: "batch"}})
