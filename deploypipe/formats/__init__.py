"""The formats, one file each. A file here that defines `FORMAT` is a format; nothing else needs to know of it."""

import pkgutil
from importlib import import_module

from .base import Format

FORMATS: dict[str, Format] = {}

for _module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
    _format = getattr(import_module(f"{__name__}.{_module.name}"), "FORMAT", None)
    if _format is not None:
        FORMATS[_format.name] = _format
