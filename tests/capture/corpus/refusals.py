"""Modules that cannot be carried. Each must raise `ExportError` that names the construct and the line.

The line is one of those marked `# <- here`; `Refusal.lines` finds them, so that this file may be edited freely.
"""
# ruff: noqa: SIM108, PTH123 -- written as users write it

import inspect
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._case import ROWS, Module, num, rand

REFUSALS: dict[str, "Refusal"] = {}
MARK = "# <- here"
BOTH_SIGNS: list[tuple[Tensor, ...]] = [(rand(5, 4, shift=2.0),), (rand(2, 4, shift=-2.0),)]
calls = 0


@dataclass(frozen=True)
class Refusal:
    """One module that must be refused, and what its message must say."""

    name: str
    build: Callable[[], nn.Module]
    example: tuple[Tensor, ...]
    probes: list[tuple[Tensor, ...]]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    """Words of which the message must hold at least one, in any case: the name of the construct, as people say it."""
    why: str = ""

    @property
    def lines(self) -> set[int]:
        """The lines of this file of which the message must name one; empty when no source line can be named."""
        try:
            lines, start = inspect.getsourcelines(type(self.build()))
        except (OSError, TypeError):
            return set()
        return {start + n for n, text in enumerate(lines) if MARK in text}


def refusal(
    name: str,
    says: tuple[str, ...],
    why: str,
    example: tuple[Tensor, ...] = (rand(3, 4),),
    probes: list[tuple[Tensor, ...]] = BOTH_SIGNS,
    dynamic: dict[str, dict[int, str]] = ROWS,
) -> Callable[[Module], Module]:
    def register(cls: Module) -> Module:
        def build() -> nn.Module:
            torch.manual_seed(0)
            return cls().eval()

        REFUSALS[name] = Refusal(name, build, example, probes, dynamic, says, why)
        return cls

    return register


@refusal("branches_differ_in_shape", ("shape", "size"), "an output has one rank and one pattern of axes in a graph")
class BranchesDifferInShape(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # <- here
            y = x.mean(dim=1)
        else:
            y = x * 2
        return y


@refusal("branches_differ_in_dtype", ("dtype", "float32", "int64"), "an output has one dtype in a graph")
class BranchesDifferInDtype(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # <- here
            return x.argmax(dim=1)
        return x.amax(dim=1)


@refusal("branches_differ_in_structure", ("tuple", "structure", "differ"), "one output here, two there")
class BranchesDifferInStructure(nn.Module):
    def forward(self, x: Tensor) -> Any:
        if x.sum() > 0:  # <- here
            return x
        return x, x.mean()


@refusal("branch_returns_none", ("none",), "a tensor on one path and nothing on the other")
class BranchReturnsNone(nn.Module):
    def forward(self, x: Tensor) -> Tensor | None:
        if x.sum() > 0:  # <- here
            return x * 2
        return None


@refusal(
    "loop_changes_dtype",
    ("dtype", "float", "int"),
    "state that changes dtype while the loop runs",
    (rand(3, 4), num(2)),
    [(rand(3, 4), num(0)), (rand(2, 4), num(3))],
)
class LoopChangesDtype(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        total = torch.zeros(4, dtype=torch.long)
        for _ in range(int(n)):  # <- here
            total = total + x[0]  # <- here
        return total


@refusal(
    "attribute_written", ("attribute", "self.calls", "calls", "mutat"), "state that lives in the module between calls"
)
class AttributeWritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.calls += 1  # <- here
        return x * self.calls


@refusal("cache_on_self", ("attribute", "self.cache", "cache", "mutat"), "a cache that one call fills for the next")
class CacheOnSelf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.cache["last"] = x.mean()  # <- here
        return x + self.cache.get("last", torch.zeros(()))


@refusal("buffer_written", ("buffer", "attribute", "mutat", "self.seen"), "a buffer updated on one path only")
class BufferWritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            self.seen += 1  # <- here
        return x * self.seen


@refusal("python_random", ("random",), "drawn in Python: the draw of the capture would be frozen")
class PythonRandom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if random.random() > 0.5:  # <- here
            return x * 2
        return x


@refusal("python_random_in_loop", ("random",), "drawn in Python, inside a loop")
class PythonRandomInLoop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while x.norm() > 1:
            x = x * random.choice([0.5, 0.25])  # <- here
        return x


@refusal("numpy_call", ("numpy", "np.", "percentile"), "NumPy computes outside the graph: its result would be frozen")
class NumpyCall(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        peak = np.percentile(x.numpy(), 90)  # <- here
        if peak > 1:
            x = x / float(peak)
        return x


@refusal("numpy_random", ("numpy", "np.", "random"), "drawn in NumPy")
class NumpyRandom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        noise = torch.from_numpy(np.random.randn(4).astype("float32"))  # <- here
        if x.sum() > 0:
            x = x + noise
        return x


@refusal("global_written", ("global", "calls"), "a module-level variable that the forward changes")
class GlobalWritten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        global calls  # <- here
        if x.sum() > 0:
            calls += 1  # <- here
        return x * calls


@refusal("try_except", ("try", "except"), "which handler runs depends on what a value raises")
class TryExcept(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        try:  # <- here
            if x.sum() < 0:
                raise ValueError("negative")
            y = x.sqrt()
        except ValueError:  # <- here
            y = -x
        return y


@refusal(
    "recursion",
    ("recurs",),
    "a depth that only values know, without a loop",
    probes=[(rand(3, 4) * 40,), (rand(2, 4) * 0.01,)],
)
class Recursion(nn.Module):
    def shrink(self, x: Tensor) -> Tensor:
        if x.norm() < 1:  # <- here
            return x
        return self.shrink(x / 2)  # <- here

    def forward(self, x: Tensor) -> Tensor:
        return self.shrink(x)


@refusal("generator_function", ("yield", "generator"), "a generator whose length depends on values")
class GeneratorFunction(nn.Module):
    def halves(self, x: Tensor) -> Iterator[Tensor]:
        while x.norm() > 1:
            yield x  # <- here
            x = x / 2

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for part in self.halves(x):  # <- here
            total = total + part
        return total


@refusal("reads_a_file", ("open", "file", "outside"), "what the file said at capture would be frozen")
class ReadsAFile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            with open(Path(__file__)) as handle:  # <- here
                x = x * len(handle.readline())
        return x


@refusal("reads_the_clock", ("time", "outside"), "the time of the capture would be frozen")
class ReadsTheClock(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if time.time() % 2 > 1:  # <- here
            return x * 2
        return x


@refusal("tensor_as_dict_key", ("key", "dict", "index", "subscript"), "a Python dict looked up by a value")
class TensorAsDictKey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = {0: "keep", 1: "negate", 2: "double"}

    def forward(self, x: Tensor) -> Tensor:
        action = self.table[int((x.sum() > 0).sum())]  # <- here
        if action == "negate":
            return -x
        return x


@refusal("value_in_a_string", ("str", "format"), "a Python string made from a value")
class ValueInAString(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        sign = f"{x.sum().item():+.1f}"[0]  # <- here
        if sign == "+":
            return x * 2
        return x


@refusal(
    "argument_list_mutated",
    ("mutat", "append", "list", "attribute", "trace"),
    "a list outside the function grows on one path",
)
class ArgumentListMutated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trace: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        while x.norm() > 1:
            x = x / 2
            self.trace.append(x)  # <- here
        return x


@refusal("to_list_then_python", ("tolist", "list"), "Python code over a list of values", dynamic={})
class ToListThenPython(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        values = sorted(set(x.flatten().tolist()))  # <- here
        return x * len(values) + values[0]


# A module whose source Python cannot show: made by `exec`, as in a notebook that was closed or a generated file.
_namespace: dict[str, Any] = {}
exec(
    "from torch import nn\n"
    "class NoSource(nn.Module):\n"
    "    def forward(self, x):\n"
    "        if x.sum() > 0:\n"
    "            return x * 2\n"
    "        return x\n",
    _namespace,
)
refusal("no_source", ("source",), "the source cannot be read, so what it branches on is not known")(
    _namespace["NoSource"]
)
