"""The guards of a trace: what torch concluded about sizes from the example's, and who asked.

`torch.export` answers each question about a dynamic size with the example's size and remembers the answer as a guard
of the program. A guard that other sizes of a dynamic axis break means that the program holds for some sizes only.
"""

import contextlib
import functools
import math
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import sympy  # type: ignore[import-untyped]
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.printers import PythonPrinter
from torch.utils._sympy.value_ranges import ValueRanges

PYTHON: Mapping[str, Any] = {"__builtins__": {}, "min": min, "max": max, "math": math}


@functools.lru_cache(maxsize=4096)
def _compiled(text: str) -> CodeType:
    return compile(text, "<guard>", "eval")


@dataclass(frozen=True)
class Caller:
    """A place on the stack: the code, the module that it belongs to, and the line."""

    code: CodeType
    module: str
    line: int


@dataclass(frozen=True)
class Guard:
    expression: Any
    """SymPy's relation of symbolic sizes; it holds for the example."""
    stack: tuple[Caller, ...]
    """Who asked, the innermost last."""

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted(str(symbol) for symbol in self.expression.free_symbols))

    @property
    def excludes_a_point(self) -> bool:
        """Whether it says only that two sizes differ."""
        return isinstance(self.expression, sympy.Unequality)

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether it holds for these sizes, by symbol. What cannot be evaluated (a division by zero) does not hold."""
        try:
            return bool(eval(_compiled(str(self)), dict(PYTHON), dict(sizes)))
        except ZeroDivisionError:
            return False
        except (NameError, SyntaxError):  # a function that Python does not have
            values = {symbol: sympy.Integer(sizes[str(symbol)]) for symbol in self.expression.free_symbols}
            return bool(self.expression.xreplace(values).doit())

    def __str__(self) -> str:
        text: str = PythonPrinter().doprint(self.expression)
        return text.replace("torch.sym_min", "min").replace("torch.sym_max", "max")


@contextlib.contextmanager
def noting_guards(found: list[Guard]) -> Iterator[None]:
    """Inside, each guard that a trace takes up is noted in `found`, with the stack that asked."""
    original = ShapeEnv.evaluate_expr

    def evaluate_expr(self: Any, *args: Any, **kwargs: Any) -> Any:
        count = len(self.guards)
        value = original(self, *args, **kwargs)
        for guard in self.guards[count:]:
            found.append(Guard(guard.expr, stack_here()))
        return value

    ShapeEnv.evaluate_expr = evaluate_expr  # type: ignore[method-assign]
    try:
        yield
    finally:
        ShapeEnv.evaluate_expr = original  # type: ignore[method-assign]


ANSWERING = ("torch.fx.experimental.symbolic_shapes", "torch.fx.experimental.sym_node",
             "torch.fx.experimental.recording", "deploypipe.torch_compat")  # fmt: skip
"""The modules that answer a question about a size; who asked stands outside them."""


ASKED = ("__bool__", "__int__", "__index__", "__hash__", "__float__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__",
         "__ge__")  # fmt: skip
"""What Python calls of a symbolic size on behalf of whoever asks."""


def stack_here() -> tuple[Caller, ...]:
    """The current stack, down to who asked the question that is being answered."""
    frames, frame = [], sys._getframe(2)
    while frame is not None:
        frames.append(Caller(frame.f_code, str(frame.f_globals.get("__name__", "")), frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    while frames and (frames[0].module.startswith(ANSWERING) or frames[0].code.co_name in ASKED):
        del frames[0]
    return tuple(reversed(frames))


def forget_guards(program: ExportedProgram, symbols: Sequence[str]) -> None:
    """Let a program run at every size: what its guards said is judged, stated and enforced elsewhere."""
    program._guards_code = []
    for symbol in list(program.range_constraints):
        if str(symbol) in symbols:
            program.range_constraints[symbol] = ValueRanges(0, sympy.oo)


def callers_of(error: BaseException) -> tuple[Caller, ...]:
    """Where an error arose, the innermost frame last."""
    walked = traceback.walk_tb(error.__traceback__)
    return tuple(Caller(f.f_code, str(f.f_globals.get("__name__", "")), line) for f, line in walked)
