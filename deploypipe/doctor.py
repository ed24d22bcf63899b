"""What this machine has and lacks to run the pipeline."""

import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from deploypipe import data
from deploypipe.errors import DeploypipeError, first_line
from deploypipe.files import make_folder
from deploypipe.formats.onnx.write import OPSET

NEEDED_DISK = 2 * 10**9
"""Bytes for a dataset, a run, its artifacts and a server's logs."""
NEEDED, USEFUL = "needed", "useful"


@dataclass(frozen=True)
class Check:
    name: str
    found: str
    ok: bool
    need: str
    """"needed": `deploypipe run` cannot work without it. "useful": it can."""


def examine(data_dir: Path | None = None, ports: tuple[int, ...] = (8080,)) -> list[Check]:
    """Every check, in the order in which the pipeline meets what is checked."""
    checks = [_check("Python", NEEDED, lambda: (sys.version.split()[0], sys.version_info >= (3, 11)))]
    checks += [_check(name, NEEDED, _version_of(name)) for name in ("torch", "torchvision", "onnx", "onnxscript")]
    checks.append(_check("CUDA", USEFUL, _cuda))
    checks.append(_check("ONNX Runtime providers", NEEDED, _providers))
    checks.append(_check("Java", NEEDED, _java))
    checks.append(_check("TorchServe", NEEDED, _torchserve))
    checks += [_check(f"port {port}", USEFUL, partial(_port, port)) for port in ports]
    checks.append(_check("folder", NEEDED, _folder))
    checks.append(_check("disk", NEEDED, _disk))
    checks.append(_check("data", USEFUL, lambda: _data(data.data_folder(data_dir))))
    return checks


def _check(name: str, need: str, probe: Callable[[], tuple[str, bool]]) -> Check:
    try:
        found, ok = probe()
    except DeploypipeError as cause:
        found, ok = str(cause), False
    except Exception as cause:
        found, ok = f"{type(cause).__name__}: {first_line(cause)}", False
    return Check(name, found, ok, need)


def _version_of(name: str) -> Callable[[], tuple[str, bool]]:
    def probe() -> tuple[str, bool]:
        return str(__import__(name).__version__), True

    return probe


def _cuda() -> tuple[str, bool]:
    if not torch.cuda.is_available():
        return "none: training and serving run on the CPU", False
    return f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})", True


def _providers() -> tuple[str, bool]:
    import onnxruntime
    from onnx import TensorProto, helper

    # A session, because a provider that is built in may still lack its libraries.
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8  # helper writes its newest, which ONNX Runtime may not know yet
    wanted = ["CPUExecutionProvider"]
    # Without a GPU, asking for it only prints an error.
    if torch.cuda.is_available() and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        wanted.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it cannot use, the answer says
    usable = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=wanted).get_providers()
    return f"{onnxruntime.__version__}: {', '.join(usable)}", True


def _java() -> tuple[str, bool]:
    from deploypipe.serve.torchserve.java import find_java

    java = find_java()
    return f"{java.version}, from {java.source}", True


def _torchserve() -> tuple[str, bool]:
    import ts

    return ts.__version__, True


def _port(port: int) -> tuple[str, bool]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as cause:
            return f"taken ({cause.strerror}): use --port", False
    return "free", True


def _folder() -> tuple[str, bool]:
    make_folder(Path.cwd())
    return f"{Path.cwd()} can be written", True


def _disk() -> tuple[str, bool]:
    free = shutil.disk_usage(Path.cwd()).free
    return f"{free / 1e9:.1f} GB free here", free > NEEDED_DISK


def _data(folder: Path) -> tuple[str, bool]:
    there = [name for name, source in data.DATASETS.items() if source.is_present(folder)]
    return f"{', '.join(there)} (folder: {folder})", "mnist" in there
