"""deploypipe takes a PyTorch model from training to a served endpoint, and proves that what is served is what was
trained.

    artifact = deploypipe.export(module, args, kwargs, format="onnx", path="model.onnx")
    runner = deploypipe.load("model.onnx")
    outputs = runner(*args, **kwargs)
    report = deploypipe.verify(module, "model.onnx", probes=[deploypipe.Call(*args, **kwargs)])

Importing this package imports none of its rooms: each public name is loaded when it is first used, so that the command
line and a client of a server start without torch. README.md lists the rooms under "Layout".
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploypipe.contract.call import Call
    from deploypipe.contract.sidecar import Artifact
    from deploypipe.contract.signature import Signature, TensorSpec
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
    from deploypipe.formats.reading import load
    from deploypipe.formats.runner import Runner
    from deploypipe.parity.budget import Budget
    from deploypipe.parity.probes import Probe
    from deploypipe.parity.tolerances import Tolerance
    from deploypipe.parity.verdict import Report
    from deploypipe.verify import verify

_HOMES = {
    "Artifact": "deploypipe.contract.sidecar",
    "Budget": "deploypipe.parity.budget",
    "Call": "deploypipe.contract.call",
    "DataError": "deploypipe.errors",
    "DeploypipeError": "deploypipe.errors",
    "ExportError": "deploypipe.errors",
    "PackageError": "deploypipe.errors",
    "ParityError": "deploypipe.errors",
    "Probe": "deploypipe.parity.probes",
    "Report": "deploypipe.parity.verdict",
    "Runner": "deploypipe.formats.runner",
    "ServingError": "deploypipe.errors",
    "Signature": "deploypipe.contract.signature",
    "TensorSpec": "deploypipe.contract.signature",
    "Tolerance": "deploypipe.parity.tolerances",
    "TrainingError": "deploypipe.errors",
    "UsageError": "deploypipe.errors",
    "export": "deploypipe.export",
    "load": "deploypipe.formats.reading",
    "verify": "deploypipe.verify",
}
"""Each public name, and the module that defines it."""

__all__ = [
    "Artifact",
    "Budget",
    "Call",
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`deploypipe.export` is a function, and the module of that name defines it. Python binds a module to its package
    whenever it is first imported, by whoever; this package then binds the function in its place, so that the name means
    the same whichever comes first."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and value.__name__ == _HOMES.get(name) == f"{__name__}.{name}":
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
