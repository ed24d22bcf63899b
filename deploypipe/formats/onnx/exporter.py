"""Writing a captured program as ONNX: the exporter of torch, with some of its translations corrected.

Python and torch round a quotient down, and a remainder takes the sign of its divisor. ONNX's `Div` of integers cuts
towards zero, and the exporter's floor of a float quotient is off by one where the quotient itself was rounded up.
"""

# mypy: disable-error-code="type-var"

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from onnxscript import INT64, ir
from onnxscript.function_libs.torch_lib.ops.core import aten__local_scalar_dense
from onnxscript.function_libs.torch_lib.tensor_typing import TTensor
from onnxscript.onnx_opset import opset18 as op
from torch._functorch._aot_autograd import graph_capture
from torch._guards import detect_fake_mode
from torch.onnx._internal.exporter import _constants, _core, _fx_passes, _registration
from torch.onnx._internal.exporter._torchlib.ops import hop

from deploypipe.staging.trace import StaticProgram

SUBGRAPHS = "pkg.torch.__subgraph__"


def to_onnx(
    capture: StaticProgram, path: str | Path | None = None, opset_version: int = 20, **options: Any
) -> torch.onnx.ONNXProgram:
    """Export a captured program. `options` go to `torch.onnx.export`."""
    settings: dict[str, Any] = {"external_data": False, "verbose": False, **options}
    with torch.no_grad(), no_symbols_left_pending(), translations_read_once():
        made = torch.onnx.export(
            capture.program,
            dynamo=True,
            opset_version=opset_version,
            custom_translation_table=TRANSLATIONS,
            **settings,
        )
    assert made is not None
    if path is not None:
        made.save(str(path), external_data=settings["external_data"])
    return made


def while_loop(cond: Any, body: Any, carried: Sequence[Any], additional: Sequence[Any]) -> Sequence[Any]:
    """The exporter stamps its calls of subgraphs with the opset's version, and then cannot inline them."""
    outputs = hop.higher_order_while_loop(cond, body, carried, additional)
    tracer = _core.current_tracer
    assert tracer is not None
    for node in tracer.nodes:
        if node.domain == SUBGRAPHS:
            node.version = None
    return outputs


@contextlib.contextmanager
def no_symbols_left_pending() -> Iterator[None]:
    """The exporter promotes types, and analyses the program before it decomposes it, by running it without a tracer,
    where nobody takes note of the symbols that `item()` makes; the next to be traced would take them for its own and
    fail."""
    original, trace = _fx_passes.insert_type_promotion_nodes, graph_capture._create_graph

    def promote(graph_module: torch.fx.GraphModule) -> None:
        with contextlib.ExitStack() as stack:
            for shape_env in _shape_envs(graph_module):
                stack.enter_context(shape_env.ignore_fresh_unbacked_symbols())
            original(graph_module)

    def trace_anew(*args: Any, **kwargs: Any) -> Any:
        mode = detect_fake_mode()
        if mode is not None and mode.shape_env is not None:
            mode.shape_env.pending_fresh_unbacked_symbols.clear()
        return trace(*args, **kwargs)

    _fx_passes.insert_type_promotion_nodes, graph_capture._create_graph = promote, trace_anew
    try:
        yield
    finally:
        _fx_passes.insert_type_promotion_nodes, graph_capture._create_graph = original, trace


@contextlib.contextmanager
def translations_read_once() -> Iterator[None]:
    """The exporter builds its registry of translations anew for each model, and parses the source of all of them."""
    original = _registration.ONNXRegistry.__dict__["from_torchlib"]

    def copy_of_it(
        kind: type[_registration.ONNXRegistry], opset_version: int = _constants.TORCHLIB_OPSET
    ) -> _registration.ONNXRegistry:
        made, kept = kind(), _torchlib(original, opset_version)
        made._opset_version = kept.opset_version
        made.functions = {target: list(translations) for target, translations in kept.functions.items()}
        return made

    _registration.ONNXRegistry.from_torchlib = classmethod(copy_of_it)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        _registration.ONNXRegistry.from_torchlib = original  # type: ignore[method-assign]


@functools.cache
def _torchlib(read: Any, opset_version: int) -> _registration.ONNXRegistry:
    registry: _registration.ONNXRegistry = read.__func__(_registration.ONNXRegistry, opset_version)
    return registry


def _shape_envs(graph_module: torch.fx.GraphModule) -> list[Any]:
    values = [n.meta.get("val") for n in graph_module.graph.nodes if n.op == "placeholder"]
    modes = {id(v.fake_mode): v.fake_mode for v in values if hasattr(v, "fake_mode")}
    return [mode.shape_env for mode in modes.values() if mode.shape_env is not None]


def floor_divide_integers(self: INT64, other: INT64) -> INT64:
    """What remains after the remainder is taken off divides without rest, so that nothing is left to round."""
    return op.Div(op.Sub(self, op.Mod(self, other)), other)


def floor_divide(self: TTensor, other: TTensor) -> TTensor:
    """As torch and Python compute it: through the exact remainder."""
    if not self.dtype.is_floating_point():
        return op.Div(op.Sub(self, op.Mod(self, other)), other)
    zero = op.CastLike(op.Constant(value_float=0.0), self)
    half = op.CastLike(op.Constant(value_float=0.5), self)
    quotient = op.Div(op.Sub(self, remainder(self, other)), other)
    floor = op.Floor(quotient)
    floor = op.Add(floor, op.CastLike(op.Greater(op.Sub(quotient, floor), half), self))
    return op.Where(op.Equal(other, zero), op.Div(self, other), floor)


def remainder(self: TTensor, other: TTensor) -> TTensor:
    """Exact for floats, too: `fmod`, moved to the sign of the divisor."""
    if not self.dtype.is_floating_point():
        return op.Mod(self, other)
    zero = op.CastLike(op.Constant(value_float=0.0), self)
    rest = op.Mod(self, other, fmod=1)
    differ = op.And(op.Not(op.Equal(rest, zero)), op.Xor(op.Less(rest, zero), op.Less(other, zero)))
    return op.Where(differ, op.Add(rest, other), rest)


def divide(self: TTensor, other: TTensor, rounding_mode: str = "") -> TTensor:
    if rounding_mode == "floor":
        return floor_divide(self, other)
    if self.dtype.is_integer():  # exact, where the exporter goes through float32
        return op.Div(self, other)
    quotient = op.Div(self, other)
    return op.Mul(op.Sign(quotient), op.Floor(op.Abs(quotient)))


def item(tensor: Any) -> Any:
    """A whole number that is a 0-dim tensor is one already; the exporter reshapes it, in every step of a loop."""
    if tensor.dtype == ir.DataType.INT64 and tensor.shape is not None and len(tensor.shape) == 0:
        return op.Identity(tensor)
    return aten__local_scalar_dense(tensor)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.higher_order.while_loop: while_loop,
    torch.ops.aten._local_scalar_dense.default: item,
    operator.floordiv: floor_divide_integers,
    torch.ops.aten.floor_divide.default: floor_divide,
    torch.ops.aten.div.Tensor_mode: divide,
    torch.ops.aten.remainder.Tensor: remainder,
    torch.ops.aten.remainder.Scalar: remainder,
}
