"""Takes a module through the compiler to one format and back to something callable, as a user of the format would.

Every artifact goes through bytes: what is compared is what a reader would load, not what the writer held.
"""

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from deploypipe.errors import ExportError
from deploypipe.formats.onnx.write import OPSET

FORMATS = ("torchscript", "onnx", "pt2")
GENERATED = "torchscript, generated"
"""TorchScript from the captured program even where scripting the original works, which would else go untested."""
Dynamic = dict[str, dict[int, str]]
Inputs = tuple[Tensor, ...]


class Carried:
    """One capture of a module, and its artifact in each format."""

    def __init__(self, module: nn.Module, example: Inputs, dynamic: Dynamic, probes: Sequence[Inputs]) -> None:
        from deploypipe.capture import capture
        from deploypipe.staging.trace import trace

        self.module, self.probes = module, list(probes)
        self.capture = trace(module, example, dynamic)
        if self.capture.limits:
            signature = capture(module, example, dynamic).signature
            for problem in (problem for probe in probes for problem in signature.problems(probe)):
                raise ExportError(problem)  # as every runner does: the form is carried within limits only

    def runner(self, fmt: str) -> Callable[..., Any]:
        if fmt == GENERATED:
            return self.torchscript(script_first=False)
        return {"torchscript": self.torchscript, "onnx": self.onnx, "pt2": self.pt2}[fmt]()

    def torchscript(self, script_first: bool = True) -> Callable[..., Any]:
        from deploypipe.formats.torchscript.printer import to_torchscript

        scripted, _ = to_torchscript(self.module, self.capture, self.probes, script_first=script_first)
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer)
        buffer.seek(0)
        loaded: Callable[..., Any] = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
        return loaded

    def pt2(self) -> Callable[..., Any]:
        buffer = io.BytesIO()
        torch.export.save(self.capture.program, buffer)
        buffer.seek(0)
        return torch.export.load(buffer).module()

    def onnx(self) -> Callable[..., Any]:
        spec = self.capture.program.call_spec.out_spec
        return onnx_runner(onnx_model(self.capture), lambda values: pytree.tree_unflatten(values, spec))


def onnx_model(capture: Any) -> bytes:
    from deploypipe.formats.onnx.exporter import to_onnx

    model: bytes = to_onnx(capture).model_proto.SerializeToString()
    return model


def exported_onnx(program: torch.export.ExportedProgram) -> bytes:
    """By torch's exporter alone, for comparison."""
    exported = torch.onnx.export(program, dynamo=True, external_data=False, opset_version=OPSET, verbose=False)
    assert exported is not None
    model: bytes = exported.model_proto.SerializeToString()
    return model


def onnx_runner(model: bytes, unflatten: Callable[[list[Tensor]], Any]) -> Callable[..., Any]:
    """Runs an ONNX model with torch tensors, and gives its flat outputs back their structure."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def call(*inputs: Tensor) -> Any:
        feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return unflatten([torch.as_tensor(value) for value in session.run(None, feeds)])

    return call


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


def own(probe: Inputs) -> Inputs:
    return tuple(t.clone() if isinstance(t, Tensor) else t for t in probe)


def check(module: nn.Module, example: Inputs, probes: Sequence[Inputs], dynamic: Dynamic, fmt: str) -> Any:
    """Assert that the artifact returns what eager returns on every probe; gives the capture."""
    carried = Carried(module, example, dynamic, probes)
    run = carried.runner(GENERATED if fmt == "torchscript" else fmt)
    module = module.eval()
    for probe in probes:
        with torch.no_grad():
            expected, found = flatten(module(*own(probe))), flatten(run(*own(probe)))
        assert len(expected) == len(found)
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4, equal_nan=True)
    return carried.capture
