"""Which files of deploypipe travel inside an archive, and how they are laid out there.

The set is what the handler and the format's reader import at module level, followed file by file; such imports are
relative.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from deploypipe.contract.archive import CODE, ENTRY_FILE
from deploypipe.errors import PackageError
from deploypipe.formats import FORMATS

_ROOT = Path(__file__).parent.parent
_ENTRY = '''"""What TorchServe loads."""

from {package}.{reader} import read
from {package}.serve.torchserve.handler import Handler


class Entry(Handler):
    def __init__(self):
        super().__init__(read)
'''


def travelling_files(format_name: str) -> dict[str, bytes]:
    """Path inside the archive → content, for a handler that reads `format_name`."""
    reader = reader_of(format_name)
    entry = _ENTRY.format(package=CODE, reader=reader)
    files = {ENTRY_FILE: entry.encode()}
    for parts in sorted(_closure([("serve", "torchserve", "handler"), tuple(reader.split("."))])):
        files[f"{CODE}/{'/'.join(parts)}.py"] = _source(parts).read_bytes()
        for depth in range(len(parts)):
            files["/".join((CODE, *parts[:depth], "__init__.py"))] = b""
    return files


def reader_of(format_name: str) -> str:
    """The module that reads artifacts of this format, below `CODE`."""
    if format_name not in FORMATS:
        raise PackageError(f"no format {format_name!r} is known here", f"There are: {', '.join(FORMATS)}.")
    reader = FORMATS[format_name].reader
    if not reader.startswith("deploypipe."):
        raise PackageError(f"the reader of {format_name} lies in {reader}, not in deploypipe")
    return reader.removeprefix("deploypipe.")


def _source(parts: tuple[str, ...]) -> Path:
    return _ROOT.joinpath(*parts).with_suffix(".py")


def _closure(entries: list[tuple[str, ...]]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    while entries:
        parts = entries.pop()
        if parts not in found:
            found.add(parts)
            entries += _imports(parts)
    return found


def _imports(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The modules of deploypipe that the module at `parts` imports when it is loaded."""
    path = _source(parts)
    imported: list[tuple[str, ...]] = []
    for statement in _loaded_statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(statement, ast.ImportFrom) and statement.level:
            base = (*parts[: len(parts) - statement.level], *(statement.module.split(".") if statement.module else ()))
            imported += [base] if _source(base).is_file() else [(*base, name) for name in _names(statement)]
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else _names(statement)
            if any(name.split(".")[0] == "deploypipe" for name in names):
                raise PackageError(f"{path}:{statement.lineno} travels inside archives and imports deploypipe by name")
    for target in imported:
        if not _source(target).is_file():
            raise PackageError(f"{path} imports {'.'.join(target)}, which is no file of deploypipe")
    return imported


def _names(statement: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in statement.names]


def _loaded_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Module-level statements, those under `if` and `try` too, without what only type checkers see."""
    for statement in body:
        if isinstance(statement, ast.If):
            if not (isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING"):
                yield from _loaded_statements(statement.body)
            yield from _loaded_statements(statement.orelse)
        elif isinstance(statement, ast.Try):
            for block in (statement.body, statement.orelse, statement.finalbody, *(h.body for h in statement.handlers)):
                yield from _loaded_statements(block)
        else:
            yield statement
