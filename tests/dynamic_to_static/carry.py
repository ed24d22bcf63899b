"""Carries a module through every format, saved and read back, and compares it with eager on each probe."""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from deploypipe.dynamic_to_static import capture
from deploypipe.dynamic_to_static.onnx import to_onnx
from deploypipe.dynamic_to_static.torchscript import to_torchscript

torch.set_num_threads(1)  # the models are small, and the machine may be shared
FORMATS = ("pt2", "onnx", "torchscript")
Probe = tuple[Any, ...]


def flatten(value: Any) -> list[Tensor]:
    if value is None:
        return []
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for key in sorted(value) for t in flatten(value[key])]
    if dataclasses.is_dataclass(value):
        return flatten(vars(value))
    if isinstance(value, (list, tuple)):
        return [t for part in value for t in flatten(part)]
    return [torch.as_tensor(value)]


def own(probe: Probe) -> Probe:
    return tuple(t.clone() if isinstance(t, Tensor) else t for t in probe)


def reader(module: nn.Module, captured: Any, form: str, probes: list[Probe]) -> Callable[..., Any]:
    buffer = io.BytesIO()
    if form == "pt2":
        torch.export.save(captured.program, buffer)
        buffer.seek(0)
        return torch.export.load(buffer).module()
    if form == "torchscript":
        made, _ = to_torchscript(module, captured, probes, script_first=False)
        torch.jit.save(made, buffer)
        buffer.seek(0)
        return torch.jit.load(buffer)
    made = to_onnx(captured)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        made.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        out = session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
        return [torch.from_numpy(np.array(o)) for o in out]

    return run


def check(module: nn.Module, example: Probe, probes: list[Probe], dynamic: Any, form: str) -> Any:
    """Assert that the artifact returns what eager returns on every probe; gives the capture."""
    captured = capture(module, example, dynamic)
    run = reader(module, captured, form, probes)
    module = module.eval()
    for probe in probes:
        with torch.no_grad():
            expected, found = flatten(module(*own(probe))), flatten(run(*own(probe)))
        assert len(expected) == len(found)
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4, equal_nan=True)
    return captured
