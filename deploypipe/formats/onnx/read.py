"""A session of ONNX Runtime from a file, with NumPy and without torch. This module travels inside archives."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ...contract.signature import TensorSpec
from ...contract.tensors import Array, as_dtype
from ..processor_time import at_most
from ..session import METADATA, SEAL, DeviceUnavailable, Session

CUDA = "CUDAExecutionProvider"
BFLOAT16, BFLOAT16_TYPE = "tensor(bfloat16)", 16
"""What ONNX Runtime calls it, and ONNX's number for it."""


class OnnxSession(Session):
    runtime = "onnxruntime"

    def __init__(self, path: Path, device: str, threads: int | None, optimisation: str = "ORT_ENABLE_ALL") -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, optimisation)
        options.log_severity_level = 4  # its exceptions say why it fails; the rest is of no use to the user
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=_providers(device))
        self.provider: str = self._session.get_providers()[0]
        self._names = [node.name for node in self._session.get_inputs()]
        self._narrow = any(
            node.type == BFLOAT16 for node in (*self._session.get_inputs(), *self._session.get_outputs())
        )
        if device.startswith("cuda") and self.provider != CUDA:
            raise DeviceUnavailable(f"ONNX Runtime fell back to {self.provider} though {device!r} was asked for")
        properties = self._session.get_modelmeta().custom_metadata_map
        self._run_options: onnxruntime.RunOptions | None = None
        super().__init__(properties.get(METADATA, ""), properties.get(SEAL, ""), device)
        if self.signature is not None:
            _check_names("inputs", self.signature.inputs, self._session.get_inputs())
            _check_names("outputs", self.signature.outputs, self._session.get_outputs())

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        if not self._narrow:
            return list(self._session.run(None, dict(zip(self._names, arrays, strict=True)), self._run_options))
        values = dict(zip(self._names, map(_to_value, arrays), strict=True))
        return [_from_value(value) for value in self._session.run_with_ort_values(None, values, self._run_options)]

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        options = self._run_options = onnxruntime.RunOptions()

        def stop() -> None:
            options.terminate = True

        try:
            with at_most(seconds, stop):
                yield
        finally:
            self._run_options = None


def _to_value(array: Array) -> onnxruntime.OrtValue:
    if array.dtype.name != "bfloat16":
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, BFLOAT16_TYPE)


def _from_value(value: onnxruntime.OrtValue) -> Array:
    if value.data_type() != BFLOAT16:
        array: Array = value.numpy()
        return array
    shape = tuple(value.shape())
    size = 2 * int(np.prod(shape, dtype=np.int64))
    bits = ctypes.string_at(value.data_ptr(), size) if size else b""  # NumPy has no such dtype, so ORT gives no array
    return np.frombuffer(bytearray(bits), as_dtype("bfloat16")).reshape(shape)


def _providers(device: str) -> list[Any]:
    """ONNX Runtime's execution providers for a device. DeviceUnavailable where this one has none for it."""
    kind, _, index = device.partition(":")
    cpu = "CPUExecutionProvider"
    if kind == "cpu":
        return [cpu]
    if kind != "cuda":
        raise DeviceUnavailable(f"ONNX Runtime runs on cpu or cuda here, not on {device!r}")
    # Asking for a provider that is not there only prints an error and falls back, so ask for what is there.
    if CUDA not in onnxruntime.get_available_providers() or not _has_cuda_device():
        raise DeviceUnavailable(f"device {device!r} asked for, but ONNX Runtime has no usable CUDA here")
    onnxruntime.preload_dlls()  # the CUDA libraries that came with Python packages, as `import torch` loads them
    # Without use_tf32=0, float32 convolutions and products run in TF32: 10 bits of mantissa.
    return [(CUDA, {"device_id": int(index or 0), "use_tf32": 0}), cpu]


def _has_cuda_device() -> bool:
    """Whether NVIDIA's driver is here and finds a device, asked of the driver itself."""
    import ctypes

    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return False


def _check_names(kind: str, specs: Sequence[TensorSpec], nodes: Sequence[Any]) -> None:
    """Tensors go in and come out by position here, but by name for whoever runs the file with ONNX Runtime alone."""
    names, wanted = [node.name for node in nodes], [spec.name for spec in specs]
    if names != wanted:
        raise ValueError(f"its {kind} are {', '.join(names)}, but its signature says {', '.join(wanted)}")


def read(path: Path, device: str, threads: int | None) -> Session:
    return OnnxSession(path, device, threads)


def variants(path: Path, device: str) -> dict[str, Callable[[], Session]]:
    """Each level of graph optimisation but the usual one: levels have differed, and a server may choose its own."""
    levels = {"off": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}
    return {f"optimisation {name}": partial(OnnxSession, path, device, None, level) for name, level in levels.items()}
