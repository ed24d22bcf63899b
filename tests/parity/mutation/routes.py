"""How mutants are made. Each gives a `Make`: it writes the mutant of a subject in a format to a path,
with the honest artifact's own description inside, as a wrong exporter would."""

import copy
import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from deploypipe.capture import Capture, capture
from deploypipe.contract.records import to_document
from deploypipe.formats import FORMATS
from deploypipe.formats.session import METADATA

from .subjects import Subject

Make = Callable[[Subject, str, Path], None]
Change = Callable[[nn.Module, Subject], nn.Module | None]
"""Changes a copy of the honest module in place, or returns another module."""


def changed(subject: Subject, change: Change) -> nn.Module:
    module = copy.deepcopy(subject.module)
    return change(module, subject) or module


def write(subject: Subject, captured: Capture, format: str, path: Path, metadata: str | None = None) -> None:
    """As `deploypipe export` writes, but nothing is proven, and the honest artifact's description goes in."""
    described = metadata if metadata is not None else subject.metadata(format)
    FORMATS[format].write(captured, path, described, [captured.example_inputs])


def remade(change: Change, *, batch: int | None = None) -> Make:
    """A changed module, captured and written like the honest one. With `batch`, its batch axis is fixed to that."""

    @functools.cache
    def recaptured(subject: Subject) -> Capture:
        example, dynamic = subject.example, subject.dynamic
        if batch is not None:
            example, dynamic = tuple(tensor[:batch] for tensor in example), {}
        again = capture(changed(subject, change), example, dynamic)
        if len(again.signature.outputs) == len(subject.captured.signature.outputs):
            # By the honest names: an exporter that has the graph wrong knows them all the same.
            again = dataclasses.replace(again, signature=subject.captured.signature)
        return again

    return lambda subject, format, path: write(subject, recaptured(subject), format, path)


def retyped(change: Change, example: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Make:
    """A changed module that knows itself as what it is: other inputs, or other names and kinds of outputs."""

    def make(subject: Subject, format: str, path: Path) -> None:
        inputs = tuple(example(tensor) for tensor in subject.example)
        again = capture(changed(subject, change), inputs, subject.dynamic)
        metadata = json_with(subject.metadata(format), again)
        write(subject, again, format, path, metadata)

    return make


def json_with(metadata: str, captured: Capture) -> str:
    import json

    return json.dumps(json.loads(metadata) | {"signature": to_document(captured.signature)})


def reweighed(change: Callable[[dict[str, Tensor], Subject], None]) -> Make:
    """The honest file with other tensors in it: `change` edits them in place, by their names in the module."""

    def edit_all(tensors: Mapping[str, Tensor], subject: Subject) -> dict[str, Tensor]:
        edited = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        change(edited, subject)
        return edited

    def make(subject: Subject, format: str, path: Path) -> None:
        if format == "onnx":
            proto = onnx.load(subject.honest(format))
            held = {item.name: item for item in proto.graph.initializer}
            tensors = {name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy()) for name, item in held.items()}
            for name, tensor in edit_all(tensors, subject).items():
                held[name].CopyFrom(onnx.numpy_helper.from_array(tensor.numpy(), name))
            onnx.save_model(proto, path)
        elif format == "pt2":
            loaded = torch.export.load(subject.honest(format))
            for name, tensor in edit_all(loaded.state_dict, subject).items():
                loaded.state_dict[name].data.copy_(tensor)
            torch.export.save(loaded, path, extra_files={METADATA: subject.metadata(format)})
        else:
            script = torch.jit.load(subject.honest(format))  # type: ignore[no-untyped-call]
            for name, tensor in edit_all(script.state_dict(), subject).items():
                script.state_dict()[name].data.copy_(tensor)
            torch.jit.save(script, path, _extra_files={METADATA: subject.metadata(format)})

    return make


def edited(edit: Callable[[onnx.ModelProto], None]) -> Make:
    """The honest ONNX file, with its protocol buffer edited in place."""

    def make(subject: Subject, format: str, path: Path) -> None:
        proto = onnx.load(subject.honest(format))
        edit(proto)
        onnx.save_model(proto, path)

    return make


def attribute(operator: str, name: str, value: Any) -> Make:
    """The honest ONNX file, with one attribute of its first `operator` set to `value`."""

    def edit(proto: onnx.ModelProto) -> None:
        node = next(node for node in proto.graph.node if node.op_type == operator)
        kept = [item for item in node.attribute if item.name != name]
        assert len(kept) == len(node.attribute) - 1, f"{operator} has no {name}"
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])

    return edited(edit)


def reprogrammed(edit: Callable[[ExportedProgram], None]) -> Make:
    """The honest pt2 file, with its graph edited in place."""

    def make(subject: Subject, format: str, path: Path) -> None:
        program = torch.export.load(subject.honest(format))
        edit(program)
        program.graph_module.recompile()
        torch.export.save(program, path, extra_files={METADATA: subject.metadata(format)})

    return make


def exported_raw(change: Change = lambda module, subject: None) -> Make:
    """By PyTorch's own exporters and nothing else, with the module in the mode in which `change` leaves it."""

    def make(subject: Subject, format: str, path: Path) -> None:
        module, signature = changed(subject, change), subject.captured.signature
        metadata = subject.metadata(format)
        if format == "torchscript":
            torch.jit.save(torch.jit.script(module), path, _extra_files={METADATA: metadata})
        elif format == "pt2":
            symbols = {axis: torch.export.Dim(axis) for axes in subject.dynamic.values() for axis in axes.values()}
            shapes = tuple({i: symbols[axis] for i, axis in axes.items()} or None for axes in subject.dynamic.values())
            program = torch.export.export(module, subject.example, dynamic_shapes=shapes)
            torch.export.save(program, path, extra_files={METADATA: metadata})
        else:
            torch.onnx.export(
                module,
                subject.example,
                path,
                dynamo=False,
                opset_version=20,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                dynamic_axes=subject.dynamic,
            )
            describe(path, metadata)

    return make


def traced(change: Change = lambda module, subject: None) -> Make:
    """TorchScript and ONNX as `torch.jit.trace` makes them: what the example did is what the artifact does."""

    def make(subject: Subject, format: str, path: Path) -> None:
        module = changed(subject, change)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer says what it freezes
            if format == "onnx":
                exported_raw(change)(subject, format, path)
            else:
                script = torch.jit.trace(module, subject.example, strict=False)  # type: ignore[no-untyped-call]
                torch.jit.save(script, path, _extra_files={METADATA: subject.metadata(format)})

    return make


def describe(path: Path, metadata: str) -> None:
    """Put a description into an ONNX file."""
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {METADATA: metadata})
    onnx.save_model(proto, path)


def rewritten(edit: Callable[[bytes], bytes]) -> Make:
    """The honest file with other bytes."""
    return lambda subject, format, path: path.write_bytes(edit(subject.honest(format).read_bytes())) and None
