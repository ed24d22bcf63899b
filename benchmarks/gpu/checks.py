"""The checks, and how one of them is run and becomes a row. Standard library only.

`needs` are the packages that a check imports, by the names that `import` takes. Each check runs in a process of its own
(`python benchmarks/gpu --only NAME --in-process`), so that one that crashes, or breaks the GPU's state, ends alone.
"""

import importlib
import importlib.util
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from report import FAILED, NOT_RUN, PARTLY, PASSED, Failed, NotRun, Row

PROJECT = Path(__file__).resolve().parents[2]
TRAINING = ("torch", "numpy")
EXPORT = (*TRAINING, "msgspec", "safetensors", "platformdirs")
ONNX = (*EXPORT, "onnx", "onnxscript", "onnxruntime")
SERVING = (
    *ONNX,
    "typer",
    "rich",
    "httpx",
    "orjson",
    "psutil",
    "sklearn",
    "PIL",
    "tensorboard",
    "ts",
    "prometheus_client",
)


@dataclass(frozen=True)
class Asked:
    """What the command line asks of every check."""

    device: str
    """"cuda", or "cpu" to try the checks themselves where there is no GPU."""
    quick: bool
    """So little work that only the code is tried, and no figure means anything."""


@dataclass(frozen=True)
class Found:
    """What a check that held saw."""

    text: str
    partly: bool = False


@dataclass(frozen=True)
class Check:
    name: str
    title: str
    function: str
    """`module:function`, which takes an Asked and returns a Found."""
    needs: tuple[str, ...]
    captures: bool = False
    """Whether it captures a model, for which torch must be as new as the project asks."""
    devices: int = 1
    seconds: int = 600
    """It is ended after that."""

    def run(self, asked: Asked) -> Row:
        """The check, in this process. Whatever it raises becomes its row."""
        try:
            self._require()
            module, _, name = self.function.partition(":")
            run: Callable[[Asked], Found] = getattr(importlib.import_module(module), name)
            found = run(asked)
        except NotRun as cause:
            return Row(self.title, NOT_RUN, str(cause))
        except Failed as cause:
            return Row(self.title, FAILED, str(cause))
        except ModuleNotFoundError as cause:
            return Row(self.title, *_missing_module(cause))
        except Exception as cause:
            return Row(self.title, FAILED, one_line(cause))
        return Row(self.title, PARTLY if found.partly or asked.quick else PASSED, found.text)

    def _require(self) -> None:
        if absent := missing(self.needs):
            raise NotRun(f"missing packages: {', '.join(absent)}")
        if self.captures:
            _require_torch()


CHECKS = (
    Check("time-99", "MNIST to 99 %", "training:time_to_99", TRAINING),
    Check("time-99.5", "MNIST to 99.5 %", "training:time_to_99_5", TRAINING, seconds=1200),
    Check("repeatable", "same seed, same bits", "training:repeatable", TRAINING),
    Check("processes", "two processes (NCCL)", "training:two_processes", TRAINING, devices=2),
    Check("export", "export from device", "artifacts:export_from_device", ONNX, captures=True),
    Check("onnx", "ONNX on device", "artifacts:onnx", ONNX, captures=True),
    Check("pt2", "pt2 on device", "artifacts:pt2", ONNX, captures=True),
    Check("torchscript", "TorchScript on device", "artifacts:torchscript", ONNX, captures=True),
    Check("serving", "serve --device", "serving:served", SERVING, captures=True),
)


def missing(names: Iterable[str]) -> list[str]:
    """Those of these packages that cannot be imported here."""

    def there(name: str) -> bool:
        try:
            return importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            return False

    return [name for name in names if not there(name)]


def one_line(cause: BaseException) -> str:
    """A foreign error in one line: its class and the beginning of what it says."""
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text[:300]}" if text else type(cause).__name__


def _missing_module(cause: ModuleNotFoundError) -> tuple[str, str]:
    name = cause.name or ""
    if name.partition(".")[0] == "deploypipe":
        return FAILED, one_line(cause)  # ours: a bug, not a package that is missing
    return NOT_RUN, f"missing packages: {name}"


def _require_torch() -> None:
    """NotRun unless torch is as new as pyproject.toml asks."""
    import torch

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = (line for line in project["dependencies"] if re.match(r"torch\b(?![-\w])", line))
    least = re.search(r">=\s*(\d+)\.(\d+)", wanted)
    here = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if least and here and tuple(map(int, here.groups())) < tuple(map(int, least.groups())):
        raise NotRun(f"exporting needs torch {'.'.join(least.groups())} or newer; this is {torch.__version__}")
