"""The user's own model and example inputs, named on the command line as `file.py:name`."""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.contract.call import Call
from deploypipe.errors import UsageError, first_line
from deploypipe.flat_module import as_call


def load_module(reference: str) -> nn.Module:
    """`file.py:Name`: an nn.Module, a class of them, or a function that returns one.

    A class or function is called without arguments after `torch.manual_seed(0)`, so that weights drawn at construction
    are the same each time.
    """
    found = _load(reference, "--model")
    if isinstance(found, type) or (not isinstance(found, nn.Module) and callable(found)):
        torch.manual_seed(0)
        found = _call(found, reference)
    if not isinstance(found, nn.Module):
        raise UsageError(f"{reference} is a {type(found).__name__}, not an nn.Module, nor does it return one")
    return found


def load_example(reference: str) -> Call:
    """`file.py:name`: a tensor, a tuple of arguments, a dict of keyword arguments, a `Call`, or a function that returns
    one of them."""
    return as_call(_value(reference, "--example"), reference)


def load_probes(reference: str) -> list[Call]:
    """`file.py:name`: a list of calls, each as an example may be written, or a function that returns one."""
    found = _value(reference, "--probes")
    if isinstance(found, Tensor | Mapping | Call) or not isinstance(found, Iterable):
        raise UsageError(
            f"{reference} is a {type(found).__name__}, not a list of calls", "One call with x alone is [(x,)]."
        )
    calls = [as_call(call, f"{reference}[{place}]") for place, call in enumerate(found)]
    if not calls:
        raise UsageError(f"{reference} holds no call to compare on")
    return calls


def _value(reference: str, option: str) -> Any:
    """What is named, or what a function of that name returns."""
    found = _load(reference, option)
    if callable(found) and not isinstance(found, Tensor):
        torch.manual_seed(0)
        found = _call(found, reference)
    return found


def parse_dynamic(axes: Sequence[str]) -> dict[str, dict[int, str]]:
    """`["x:0=batch", "x:1=length"]` → `{"x": {0: "batch", 1: "length"}}`."""
    parsed: dict[str, dict[int, str]] = {}
    for item in axes:
        place, _, symbol = item.partition("=")
        name, _, axis = place.rpartition(":")
        if not (name and symbol.isidentifier() and axis.isdigit()):
            raise UsageError(f"--dynamic {item!r} is not of the form argument:axis=symbol", "Example: x:0=batch.")
        parsed.setdefault(name, {})[int(axis)] = symbol
    return parsed


def _load(reference: str, option: str) -> Any:
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not (name and path.suffix == ".py"):
        raise UsageError(f"{option} {reference!r} is not of the form file.py:name")
    if not path.is_file():
        raise UsageError(f"{option}: no file {path}")
    module = _module(path)
    if not hasattr(module, name):
        raise UsageError(f"{path} defines no {name!r}")
    return getattr(module, name)


def _module(path: Path) -> ModuleType:
    """The file as a module, executed once however often it is named."""
    whole = path.resolve()
    # A name of its own: `onnx.py` must not be what others get who import onnx.
    name = f"_deploypipe_user_{hashlib.sha256(os.fsencode(whole)).hexdigest()[:16]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, whole)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Found by name while it runs (dataclasses) and later (inspect, pickle).
    sys.modules[name] = module
    # Its neighbours can be imported, later too, as a script's can; but last, where they hide no installed package.
    if str(whole.parent) not in sys.path:
        sys.path.append(str(whole.parent))
    try:
        specification.loader.exec_module(module)
    except BaseException as cause:
        del sys.modules[name]
        if isinstance(cause, Exception | SystemExit):
            raise UsageError(f"{path} fails to run: {type(cause).__name__}: {first_line(cause)}") from cause
        raise
    return module


def _call(maker: Any, reference: str) -> Any:
    try:
        return maker()
    except (Exception, SystemExit) as cause:
        raise UsageError(f"{reference}() fails: {type(cause).__name__}: {first_line(cause)}",
                         "It is called without arguments.") from cause  # fmt: skip
