"""The resolver: gives rewritten code the rewritten form of each function that it calls."""

from __future__ import annotations

import types

from deploypipe.compiler.factory import factory_of, is_rewritten
from deploypipe.compiler.source import SourceUnavailable
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.staging.context import current
from deploypipe.staging.helpers import HELPERS


def rewritten(function: types.FunctionType) -> types.FunctionType:
    """The rewritten form of a function of the author's, where it is among those to rewrite; Unsupported where it has
    none."""
    selection = current().selection
    if is_rewritten(function.__code__) or (selection is not None and function.__code__ not in selection):
        return function
    try:
        factory = factory_of(function)
    except SourceUnavailable as error:
        raise Unsupported(
            f"call of {function.__qualname__}()", f"its source is not available ({error})", "define it in a file"
        ) from error
    current().rewritten.setdefault(factory.title, factory.diff)
    return factory.instantiate(function, HELPERS)
