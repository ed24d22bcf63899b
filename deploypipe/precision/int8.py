"""An ONNX artifact with weights and activations rounded to 8 bits, by onnxruntime's own static quantisation, which
measures the range of every activation on training images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deploypipe.formats.format import Write
from deploypipe.formats.session import errors_only

if TYPE_CHECKING:
    import onnx

    from deploypipe.capture import Capture

BATCH = 64
"""Images whose activations are measured at a time."""
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that are worth rounding."""


def rounding(source: Path, images: Tensor) -> Write:
    """A `Format.write` that rounds `source`, an artifact of the same capture with one input, by its activations on
    `images`."""

    def write(capture: "Capture", path: Path, metadata: str, probes: Sequence[tuple[Tensor, ...]]) -> str:
        import onnx

        from deploypipe.formats.onnx.write import save_described

        (name,) = (spec.name for spec in capture.signature.inputs)
        _round(source, name, images, path)
        save_described(onnx.load(str(path)), path, metadata)
        return f"rounded to int8 by onnxruntime, ranges from {len(images)} training images"

    return write


def _round(source: Path, name: str, images: Tensor, path: Path) -> None:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    simple = path.with_name("simple.onnx")
    with errors_only("root"):  # it advises to do what is done here
        # Folds batch normalisations into the products before them, and infers the shapes that rounding needs.
        quant_pre_process(str(source), str(simple), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(simple),
            str(path),
            _reader(name, images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_last_products(onnx.load(str(simple)).graph),
        )
    simple.unlink()


def _reader(name: str, images: Tensor) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(torch.split(images, BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch.numpy()}

    return Reader()


def _last_products(graph: "onnx.GraphProto") -> list[str]:
    """The product nearest to each output stays float: rounded logits would give ties, and it is the smallest."""
    made = {name: node for node in graph.node for name in node.output}
    found, seen = [], set()
    ahead = [value.name for value in graph.output]
    while ahead:
        node = made.get(ahead.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type in PRODUCTS:
            found.append(node.name)
        else:
            ahead.extend(node.input)
    return found
