"""Frozen dataclasses to JSON documents and back, with checks, by msgspec. This module travels inside archives.

Paths are written as strings. Fields that a document has beyond the class's are ignored, so that an older reader takes
what a newer writer added. A field that a document left to its default is left out again when the record is written.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

Record = TypeVar("Record")


def to_document(record: Any) -> Any:
    """What `json.dumps` takes, and what `json.loads` gives back: tuples become lists."""
    return _lists(msgspec.to_builtins(record, enc_hook=_written))


def from_document(document: Mapping[str, Any], kind: type[Record]) -> Record:
    """The `kind` that `document` describes. ValueError, naming the field, where it describes none."""
    record: Record = msgspec.convert(document, kind, dec_hook=_read)
    return record


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _written(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a record cannot hold a {type(value).__name__}")


def _read(kind: type[Any], value: Any) -> Any:
    if kind is not Path:
        raise TypeError(f"a record cannot hold a {kind.__name__}")
    if not isinstance(value, str):
        raise ValueError(f"a path is a string, not a {type(value).__name__}")
    return Path(value)
