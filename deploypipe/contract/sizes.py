"""Sizes of dynamic axes: how an author writes one, and the limits that an artifact states. Travels inside archives.

An axis is written as a name ("batch"), a multiple ("16*h"), or either with a range ("seq:1..512"). A limit is a
comparison of such names in Python's notation ("seq <= 64", "h % 2 == 0", "rows != columns").
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WRITTEN = re.compile(r"(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*)(?::(\d*)\.\.(\d*))?")
FORMS = 'a name ("batch"), a multiple ("16*h"), or either with a range ("seq:1..512")'

OPERATIONS: Mapping[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Pow: operator.pow, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
FUNCTIONS: Mapping[str, Callable[..., Any]] = {"min": min, "max": max}


@dataclass(frozen=True)
class Axis:
    """The size of a dynamic axis: a number of times the value of a symbol."""

    symbol: str
    multiple: int = 1
    smallest: int | None = None
    """The smallest value of the symbol, where the author states one."""
    largest: int | None = None

    @property
    def shown(self) -> str:
        """As it stands in a signature's shape."""
        return self.symbol if self.multiple == 1 else f"{self.multiple}*{self.symbol}"

    @property
    def limits(self) -> tuple[str, ...]:
        """The author's range, as limits."""
        low = () if self.smallest is None else (f"{self.symbol} >= {self.smallest}",)
        high = () if self.largest is None else (f"{self.symbol} <= {self.largest}",)
        return low + high


def parse_axis(text: str) -> Axis:
    """The axis that `text` writes. ValueError where it is none."""
    match = WRITTEN.fullmatch(text.strip())
    if match is None or match[1] == "0":
        raise ValueError(f"{text!r} is not a size: write {FORMS}")
    multiple, symbol, low, high = match.groups()
    axis = Axis(symbol, int(multiple or 1), int(low) if low else None, int(high) if high else None)
    if axis.smallest is not None and axis.largest is not None and axis.smallest > axis.largest:
        raise ValueError(f"{text!r} holds no size: {axis.smallest} is larger than {axis.largest}")
    return axis


def declared_limits(axes: Mapping[str, Mapping[int, str]]) -> tuple[str, ...]:
    """The ranges that an author states of dynamic axes, as limits, each once."""
    written = [axis for by_place in axes.values() for axis in by_place.values()]
    return tuple(dict.fromkeys(limit for axis in written for limit in parse_axis(axis).limits))


def writes_axis(shown: str) -> bool:
    """Whether an axis of a signature's shape is a symbol or a multiple of one, not another expression."""
    return WRITTEN.fullmatch(shown) is not None


def symbol_value(shown: str, size: int) -> tuple[str, int] | None:
    """The symbol of an axis of a signature's shape, and its value where the axis has this size. None where the axis is
    another expression, or where the size is no multiple of what the axis says."""
    match = WRITTEN.fullmatch(shown)
    if match is None:
        return None
    multiple = int(match[1] or 1)
    return None if size % multiple else (match[2], size // multiple)


def broken_limits(limits: Sequence[str], values: Mapping[str, int]) -> list[str]:
    """The limits that these values of the symbols break. A limit of a symbol without a value is not judged."""
    return [limit for limit in limits if _names(limit) <= set(values) and not _holds(limit, values)]


def _holds(limit: str, values: Mapping[str, int]) -> bool:
    try:
        return bool(_value(ast.parse(limit, mode="eval").body, values))
    except ZeroDivisionError:  # a limit that has no value at these sizes does not hold there
        return False


def _names(limit: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(limit)) if isinstance(node, ast.Name)} - set(FUNCTIONS)


def _value(node: ast.expr, values: Mapping[str, int]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, values)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left, values), _value(node.right, values))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATIONS:
        return OPERATIONS[type(node.ops[0])](_value(node.left, values), _value(node.comparators[0], values))
    if isinstance(node, ast.BoolOp):
        parts = [_value(part, values) for part in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        return FUNCTIONS[node.func.id](*(_value(part, values) for part in node.args))
    raise ValueError(f"no limit: {ast.unparse(node)!r}")
