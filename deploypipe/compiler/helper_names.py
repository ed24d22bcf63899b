"""The contract with the staging room: the helpers that rewritten code calls, by name. Staging provides each of them."""

from typing import Literal, get_args

HelperName = Literal[
    "and_", "arithmetic", "assert_", "call", "compare", "for_", "frame", "getitem", "if_", "ifexp", "inplace", "mutate",
    "not_", "or_", "pop", "raise_", "refuse_try", "second", "setattr_", "setitem", "slice", "undefined", "while_",
]  # fmt: skip
HELPER_NAMES: tuple[str, ...] = get_args(HelperName)

RETURNED_VALUE = "the returned value"
"""How messages call the name that holds what a function returns; the author gave it none."""

MUTATORS = frozenset((
    "append", "extend", "insert", "pop", "clear", "remove", "reverse", "sort", "update", "add", "setdefault",
    "__delitem__",
))  # fmt: skip
"""Methods of Python's containers that change them: their calls become calls of `mutate`."""
