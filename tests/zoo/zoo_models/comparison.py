"""Eager and an artifact, called alike and compared."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from deploypipe import Call
from deploypipe.capture import Capture, capture
from deploypipe.flat_module import flat_call
from zoo_models.model import ZooCall


def run(module: Callable[..., Any], call: ZooCall) -> Any:
    """With inputs of its own, for a forward that works in place on them."""
    args, kwargs = copy.deepcopy(tuple(call))
    with torch.no_grad():
        return module(*args, **kwargs)


def leaves_of(outputs: Any) -> list[Tensor]:
    """Tensors and numbers among the outputs, in order."""
    return [torch.as_tensor(leaf) for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor | int | float)]


def difference(expected: Any, actual: Any) -> str:
    """What differs first, or nothing."""
    wanted, found = leaves_of(expected), leaves_of(actual)
    if len(wanted) != len(found):
        # A runtime may leave out what is a plain number in eager.
        wanted = [leaf for leaf in pytree.tree_leaves(expected) if isinstance(leaf, Tensor)]
    if len(wanted) != len(found):
        return f"{len(found)} outputs instead of {len(wanted)}"
    for i, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {i} is {b.dtype}{list(b.shape)} instead of {a.dtype}{list(a.shape)}"
        a, b = (each.to(torch.complex128 if each.is_complex() else torch.float64) for each in (a, b))
        scale = max(1.0, float(a[a.isfinite()].abs().max())) if a.isfinite().any() else 1.0
        if not torch.allclose(b, a, rtol=1e-3, atol=1e-4 * scale, equal_nan=True):
            return f"output {i} differs by {float((a - b).abs().nan_to_num().max()):.3g}"
    return ""


def capture_of(module: nn.Module, call: ZooCall, dynamic: Any) -> Capture:
    return capture(module, Call(*call.args, **call.kwargs), dynamic=dynamic)


def run_captured(captured: Capture, module: nn.Module, call: ZooCall) -> Any:
    """The captured program on the tensors of a call of `module`. ValueError where its signature refuses their sizes, as
    every runner of an artifact does."""
    flat = flat_call(module, Call(*call.args, **call.kwargs))
    if problems := captured.signature.problems(flat.inputs):
        raise ValueError("; ".join(problems))
    return run(captured.program.module(), ZooCall(flat.inputs, {}))
