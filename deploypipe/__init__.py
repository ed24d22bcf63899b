"""deploypipe takes a PyTorch model from training to a served endpoint, and proves that what is served is what was
trained.

    artifact = deploypipe.export(module, example_inputs, format="onnx", path="model.onnx")
    runner = deploypipe.load("model.onnx")
    outputs = runner(*inputs)
    report = deploypipe.verify(module, "model.onnx", probes=[inputs])
"""

from deploypipe.artifact import Artifact, load
from deploypipe.errors import (
    DataError,
    DeploypipeError,
    ExportError,
    PackageError,
    ParityError,
    ServingError,
    TrainingError,
    UsageError,
)
from deploypipe.export import export
from deploypipe.formats.base import Runner
from deploypipe.parity import Probe, Report, Tolerance, verify
from deploypipe.signature import Signature, TensorSpec

__all__ = [
    "Artifact",
    "DataError",
    "DeploypipeError",
    "ExportError",
    "PackageError",
    "ParityError",
    "Probe",
    "Report",
    "Runner",
    "ServingError",
    "Signature",
    "TensorSpec",
    "Tolerance",
    "TrainingError",
    "UsageError",
    "export",
    "load",
    "verify",
]
