"""Any failure of a trace as an `ExportError` at the author's line."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator

from torch import nn

from deploypipe.compiler.factory import is_rewritten
from deploypipe.compiler.unsupported import Unsupported
from deploypipe.eager import author_of
from deploypipe.errors import ExportError
from deploypipe.staging.context import DeliberateRaise

DEPENDS_ON_DATA = "The step needs a constant where the model has a value that depends on the input."
OTHERWISE = "Write this step with torch operations, or report it with the line above."


def line_of_forward(module: nn.Module) -> str:
    """`file:line` of a module's forward."""
    module = author_of(module)
    code = getattr(type(module).forward, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else type(module).__name__


def explain(error: BaseException, module: nn.Module) -> ExportError:
    """What went wrong, where in the author's source, and what to do."""
    chain = list(chain_of(error))
    where, line = _place(chain) or (line_of_forward(module), "")
    unsupported = next((link for link in chain if isinstance(link, Unsupported)), None)
    if unsupported is not None:
        text = f"{unsupported.where or where}: {unsupported.construct}: {unsupported.why}"
        return ExportError(text, _sentence(unsupported.remedy), excerpt=unsupported.excerpt)
    raised = next((link for link in chain if isinstance(link, DeliberateRaise)), None)
    if raised is not None:
        return ExportError(f"{where}: raise: every path raises {raised}", "Give inputs for which forward returns.")
    if any(isinstance(link, RecursionError) for link in chain):
        return ExportError(
            f"{where}: `{line}`: recursion: how deep it goes depends on values", "Write the recursion as a loop."
        )
    text, kind = (str(error).strip().splitlines() or [""])[0], type(error).__name__
    data = kind in ("GuardOnDataDependentSymNode", "UserError") or "data-dependent" in text or "Constraint" in kind
    shown = f"{where}: `{line}`: {kind}: {text}" if line else f"{where}: {kind}: {text}"
    return ExportError(shown, DEPENDS_ON_DATA if data else OTHERWISE)


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__ or link.__context__


def _place(chain: list[BaseException]) -> tuple[str, str] | None:
    """Where in the author's source the first of the errors arose that passed through rewritten code, and that line."""
    for link in chain:
        frames = [(f.f_code, n) for f, n in traceback.walk_tb(link.__traceback__) if is_rewritten(f.f_code)]
        if frames:
            code, number = frames[-1]
            return f"{code.co_filename}:{number}", linecache.getline(code.co_filename, number).strip()
    return None


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
