"""What must be repaired in torch's ONNX exporter, which is private but for `torch.onnx.export`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch._functorch._aot_autograd import graph_capture
from torch._guards import detect_fake_mode
from torch.onnx._internal.exporter import _constants, _core, _fx_passes, _registration
from torch.onnx._internal.exporter._torchlib.ops import hop

SUBGRAPHS = "pkg.torch.__subgraph__"
"""The domain of the exporter's calls of subgraphs."""


def while_loop(cond: Any, body: Any, carried: Sequence[Any], additional: Sequence[Any]) -> Sequence[Any]:
    """The exporter's translation of `torch.while_loop`. It stamps its calls of subgraphs with the opset's version, and
    then cannot inline them; here they carry none."""
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
