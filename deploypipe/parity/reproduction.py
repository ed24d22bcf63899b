"""A failure as a script of its own: the inputs, what eager returned for them, and how to run the artifact."""

import base64
import io
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploypipe.contract.signature import dtype_name
from deploypipe.contract.structure import by_name, unflatten
from deploypipe.eager import flat_tensors
from deploypipe.files import atomic_path
from deploypipe.formats import format_of
from deploypipe.formats.reading import read_runner
from deploypipe.parity.own_files import DATA_MARK, MARK, data_for
from deploypipe.parity.verdict import Culprit

LARGEST_INSIDE = 1_000_000
"""Characters of data that a script holds itself; more go into a file beside it."""

RUN = {
    "onnx": """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(artifact), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    returned = session.run_with_ort_values(None, dict(zip(names, map(to_onnx, inputs))))
    return [from_onnx(value) for value in returned]


def to_onnx(tensor):
    import onnxruntime

    if tensor.dtype == torch.bfloat16:  # 16 is ONNX's number for it; NumPy has none
        raw = tensor.view(torch.uint16).numpy()
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, 16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(tensor.numpy())


def from_onnx(value):
    if value.data_type() == "tensor(bfloat16)":
        return torch.from_dlpack(value._ortvalue)
    return torch.from_numpy(numpy.asarray(value.numpy()))
""",
    "torchscript": """
    with torch.no_grad():
        return flat(torch.jit.load(str(artifact), map_location="cpu")(*inputs))
""",
    "pt2": """
    with torch.no_grad():
        return flat(torch.export.load(str(artifact)).module()(*inputs))
""",
}
OTHERWISE = """
    import deploypipe

    return flat(deploypipe.load(artifact)(*inputs))
"""

SCRIPT = '''@mark
"""@title

Run me: python @script [ARTIFACT]
I run the artifact on the inputs below, compare with what the eager model returned for them, and exit with 1 where they
differ. I need torch, numpy@needs.
"""

import base64
import io
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy
import torch

HERE = Path(__file__).resolve().parent
ARTIFACT = HERE / @artifact
OUTPUTS = @outputs  # name, atol, rtol@order


def run(artifact, inputs):@run

def flat(outputs):
    """The tensors in the order in which they were returned."""
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, (list, tuple)):
        return [tensor for item in outputs for tensor in flat(item)]
    return [torch.as_tensor(outputs)]


def agree(name, atol, rtol, got, want):
    """Print how far they are apart; whether |got - want| <= atol + rtol * |want|, NaN and infinities in place."""
    if got.shape != want.shape or got.dtype != want.dtype:
        print(f"{name}: DIFFERS: artifact {got.dtype} {list(got.shape)}, eager {want.dtype} {list(want.shape)}")
        return False
    if not want.numel():
        return True
    wide = torch.complex128 if want.is_complex() else torch.float64
    a, e = got.to(wide), want.to(wide)
    same = (got == want) | (a.isnan() & e.isnan())
    distance = torch.where(same, 0.0, (a - e).abs()).nan_to_num(nan=float("inf"))
    fine = same
    if want.is_floating_point() or want.is_complex():
        fine = same | (a.isfinite() & e.isfinite() & (distance <= atol + rtol * e.abs()))
    at = int(torch.where(fine, -1.0, distance).argmax() if not fine.all() else distance.argmax())
    index = [int(axis) for axis in torch.unravel_index(torch.tensor(at), want.shape)]
    print(f"{name}: {'agrees' if fine.all() else 'DIFFERS'}, {int((~fine).sum())} of {fine.numel()} values differ")
    print(f"  worst element {index}: artifact {got.flatten()[at].item()!r}, eager {want.flatten()[at].item()!r}")
    print(f"  largest difference {distance.max().item():g}, allowed {atol:g} + {rtol:g} * |eager|")
    return bool(fine.all())


def main(arguments):
    returned = run(Path(arguments[0]) if arguments else ARTIFACT, INPUTS)
    if len(returned) != len(EXPECTED):
        print(f"DIFFERS: artifact returns {len(returned)} tensors, eager {len(EXPECTED)}")
        return 1
    rows = zip(OUTPUTS, @returned, EXPECTED)
    return 0 if all([agree(*output, got, want) for output, got, want in rows]) else 1


@decode


INPUTS = [
@inputs]
EXPECTED = [
@expected]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''
INSIDE = """def tensor(dtype, text):
    array = numpy.load(io.BytesIO(zlib.decompress(base64.b64decode(text))))
    return torch.from_numpy(array).view(getattr(torch, dtype))"""
BESIDE = """def tensor(dtype, name):
    return torch.from_numpy(DATA[name]).view(getattr(torch, dtype))


DATA = numpy.load(HERE / {data})"""


def write_reproduction(
    path: Path,
    artifact: Path,
    inputs: tuple[Tensor, ...],
    expected: Sequence[Tensor],
    names: Sequence[str],
    tolerances: Sequence[tuple[float, float]],
    culprit: Culprit | None,
) -> None:
    """Write a script to `path` that runs `artifact` on `inputs`, compares it with `expected`, what eager returns (flat,
    dicts in the order of their names; `names` and (atol, rtol) for each), and exits with 1 where it differs. It imports
    nothing of deploypipe, and finds the artifact from where it lies itself. Large data lie beside it, as .npz."""
    kind = format_of(artifact).name
    tensors = {f"input_{i}": tensor for i, tensor in enumerate(inputs)}
    tensors |= {f"expected_{i}": tensor for i, tensor in enumerate(expected)}
    data = {name: _encode(_array(tensor)) for name, tensor in tensors.items()}
    beside = data_for(path)
    decode = INSIDE
    if sum(map(len, data.values())) > LARGEST_INSIDE:
        with atomic_path(beside) as temporary:
            arrays = {name: _array(tensor) for name, tensor in tensors.items()}
            np.savez_compressed(temporary, allow_pickle=False, **arrays, **{DATA_MARK: np.array(True)})
        data = {name: name for name in tensors}
        decode = BESIDE.format(data=repr(beside.name))
    elif beside.exists():  # of an earlier script, which was larger
        beside.unlink()
    rows = [f"    tensor({dtype_name(t.dtype)!r}, {data[name]!r}),\n" for name, t in tensors.items()]
    order = _order(artifact, len(expected))
    outputs = [(name, *tolerance) for name, tolerance in zip(names, tolerances, strict=True)]
    title = f"{artifact.name} does not return what the eager model returns."
    if culprit is not None:
        title += f"\n\n{str(culprit)[:1].upper()}{str(culprit)[1:]}."
    fields = {
        "mark": MARK,
        "title": title.replace("\\", "\\\\").replace('"""', "'''"),
        "script": path.name,
        "needs": " and onnxruntime" if kind == "onnx" else "" if kind in RUN else " and deploypipe",
        "artifact": repr(_relative(artifact, path.parent)),
        "outputs": repr(outputs),
        "order": f"\nORDER = {order}  # which of the artifact's outputs each of them is" if order else "",
        "run": RUN.get(kind, OTHERWISE),
        "returned": "[returned[i] for i in ORDER]" if order else "returned",
        "decode": decode,
        "inputs": "".join(rows[: len(inputs)]),
        "expected": "".join(rows[len(inputs) :]),
    }
    text = re.sub(r"@(\w+)", lambda match: fields[match[1]], SCRIPT)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _relative(artifact: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(artifact, folder)).as_posix()
    except ValueError:  # another drive
        return str(artifact.resolve())


def _order(artifact: Path, count: int) -> list[int]:
    """Where each output, dicts in the order of their names, stands among those that the file itself returns; [] where
    they stand alike, or the file does not say."""
    try:
        signature = read_runner(artifact, "cpu").signature
        assert signature is not None
        leaves = flat_tensors(by_name(unflatten([torch.tensor(i) for i in range(count)], signature.structure)))[0]
    except Exception:
        return []
    order = [int(leaf) for leaf in leaves]
    return order if order != sorted(order) else []


def _array(tensor: Tensor) -> "np.ndarray[Any, Any]":
    """With the same bits, where NumPy lacks the dtype."""
    own = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    try:
        return own.numpy()
    except TypeError:
        return own.view({1: torch.uint8, 2: torch.int16}[own.element_size()]).numpy()


def _encode(array: "np.ndarray[Any, Any]") -> str:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(zlib.compress(buffer.getvalue(), 9)).decode("ascii")
