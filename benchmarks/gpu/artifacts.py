"""Artifacts on the device: exported from a model that lies there, and held against eager where they run there."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from checks import Asked, Found
from report import Failed, NotRun

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".pt"}
Probes = list[tuple["Tensor", ...]]


def onnx(asked: Asked) -> Found:
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    if asked.device == "cuda" and "CUDAExecutionProvider" not in providers:
        raise NotRun("this ONNX Runtime has no CUDA provider: onnxruntime-gpu has it")
    return _parity(asked, "onnx")


def pt2(asked: Asked) -> Found:
    return _parity(asked, "pt2")


def torchscript(asked: Asked) -> Found:
    return _parity(asked, "torchscript")


def export_from_device(asked: Asked) -> Found:
    """A model that lies on the device is exported in each format from inputs that lie there; the artifacts name no
    device, and the model stays where it was."""
    import deploypipe

    def check(module: "nn.Module", example: "tuple[Tensor, ...]", probes: Probes, name: str, folder: Path) -> None:
        where = module.to(asked.device)
        placed = tuple(tensor.to(asked.device) for tensor in example)
        for format, suffix in SUFFIXES.items():
            path = folder / f"{name}{suffix}"
            deploypipe.export(where, placed, format=format, path=path, dynamic=_dynamic(name))
            if left := {str(weight.device) for weight in where.parameters() if weight.device.type != asked.device}:
                raise Failed(f"exporting moved the model's weights to {', '.join(left)}")
            _judge(deploypipe.verify(_copy_on_cpu(where), path, probes), f"{format} on the CPU")

    return _each_model(
        asked, check, f"exported from {asked.device} as {', '.join(SUFFIXES)}, equal to eager on the CPU"
    )


def _parity(asked: Asked, format: str) -> Found:
    """Artifacts of one format, run on the device, return what eager returns on the CPU."""
    import deploypipe

    providers = set()

    def check(module: "nn.Module", example: "tuple[Tensor, ...]", probes: Probes, name: str, folder: Path) -> None:
        path = folder / f"{name}{SUFFIXES[format]}"
        deploypipe.export(module, example, format=format, path=path, dynamic=_dynamic(name))
        providers.add(deploypipe.load(path, device=asked.device).provider)
        _judge(deploypipe.verify(module, path, probes, device=asked.device), f"on {asked.device}")

    found = _each_model(asked, check, "equal to eager")
    return Found(f"{', '.join(sorted(providers))}: {found.text}")


def _judge(report: object, where: str) -> None:
    """Failed, in the report's own words, unless it passed."""
    try:
        report.raise_if_failed()  # type: ignore[attr-defined]
    except Exception as cause:
        raise Failed(f"{where}: {' '.join(str(cause).split())}") from cause


def _each_model(asked: Asked, check: Callable[..., None], done: str) -> Found:
    """`check` for each model, all of them whatever comes of the others. Failed, with all that went wrong."""
    passed, wrong = [], []
    with tempfile.TemporaryDirectory(prefix="deploypipe-gpu-") as scratch:
        for name, module, example, probes in _models(asked):
            try:
                check(module, example, probes, name, Path(scratch))
            except Exception as cause:
                wrong.append(f"{name}: {' '.join(str(cause).split())[:300]}")
            else:
                passed.append(name)
    if wrong:
        raise Failed("; ".join([*wrong, *([f"{done}: {', '.join(passed)}"] if passed else [])]))
    return Found(f"{done}: {', '.join(passed)}")


def _models(asked: Asked) -> "Iterator[tuple[str, nn.Module, tuple[Tensor, ...], Probes]]":
    """Networks of the zoo with random weights, their example inputs and other inputs: one without control flow, a
    branch, a loop that an input counts, a loop over an axis."""
    import torch

    from deploypipe.models import entry_of

    def pixels(size: int) -> "tuple[Tensor, ...]":
        return (torch.randint(0, 256, (size, 1, 28, 28), dtype=torch.uint8),)

    torch.manual_seed(0)
    probes: dict[str, Probes] = {
        "lean-cnn": [pixels(1), pixels(7), pixels(64)],
        "dynamic-branch": [(torch.rand(3, 10),), (-torch.rand(5, 10),)],
        "dynamic-depth": [(torch.randn(3, 10), torch.tensor(depth)) for depth in (0, 1, 4)],
        "sentence": [(torch.randint(0, 100, shape),) for shape in ((1, 1), (3, 9), (8, 20))],
    }
    for name, given in list(probes.items())[: 1 if asked.quick else None]:
        entry = entry_of(name)
        yield name, entry.build().eval(), entry.example(), given


def _dynamic(name: str) -> dict[str, dict[int, str]]:
    from deploypipe.models import entry_of

    return {argument: dict(axes) for argument, axes in entry_of(name).dynamic.items()}


def _copy_on_cpu(module: "nn.Module") -> "nn.Module":
    import copy

    return copy.deepcopy(module).cpu()
