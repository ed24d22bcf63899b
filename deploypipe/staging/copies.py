"""A copy of a module to capture from: own objects, shared weights, in eval mode, its forwards rewritten."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from deploypipe.errors import ExportError
from deploypipe.staging import calls

TORCH_OWN = ("_parameters", "_buffers", "_modules")


def working_copy(module: nn.Module) -> nn.Module:
    """The module with new Python objects and the same weights, so that nothing done to it reaches the caller's."""
    shared = {id(t): t for t in [*module.parameters(), *module.buffers()]}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, torch.Tensor):
                shared[id(value)] = value
    try:
        made: nn.Module = copy.deepcopy(module, dict(shared))
    except Exception as error:
        raise ExportError(
            f"{type(module).__name__}: it cannot be copied ({error}), and capture must not touch the original",
            "Remove what cannot be copied (open files, locks, generators) from the module's attributes.",
        ) from error
    return made.eval()


def rewrite_forwards(module: nn.Module) -> None:
    """Let every submodule whose forward is the author's run its rewritten form, whoever calls it."""
    for part in module.modules():
        forward = type(part).forward
        if "forward" in vars(part):
            forward = vars(part)["forward"]
        function = forward if isinstance(forward, types.FunctionType) else getattr(forward, "__func__", None)
        if isinstance(function, types.FunctionType) and _is_users(function):
            object.__setattr__(part, "forward", _lazily(part, function))


def _is_users(function: types.FunctionType) -> bool:
    if calls.is_users(function):
        return True
    inner = getattr(function, "__wrapped__", None)
    return isinstance(inner, types.FunctionType) and calls.is_users(inner)


def _lazily(part: nn.Module, function: types.FunctionType) -> Callable[..., Any]:
    @functools.wraps(function)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return calls.resolve(function)(part, *args, **kwargs)

    return forward


def fingerprint(module: nn.Module) -> dict[str, Any]:
    """What forward must leave as it found it: plain Python attributes of every submodule, down into containers."""
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if key not in TORCH_OWN:
                found[f"{name}.{key}".lstrip(".")] = _shape_of(value)
    return found


def containers_of(module: nn.Module) -> dict[int, object]:
    """The lists, dicts and sets that a module holds: they outlive a call."""
    found: dict[int, object] = {}
    todo = [value for part in module.modules() for key, value in vars(part).items() if key not in TORCH_OWN]
    while todo:
        value = todo.pop()
        if isinstance(value, (list, dict, set)) and id(value) not in found:
            found[id(value)] = value
            todo.extend(value.values() if isinstance(value, dict) else value)
    return found


def _shape_of(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(_shape_of, value)]
    if isinstance(value, dict):
        return {repr(k): _shape_of(v) for k, v in value.items()}
    if isinstance(value, set):
        return ("set", len(value))
    if isinstance(value, (int, float, str, bool, type(None))):
        return value
    return (type(value).__name__, id(value))
