"""What Jajal et al. (arXiv 2303.17708) and Louloudakis et al. (arXiv 2312.15101) found converters to do, by kinds. The
pinned exporter does none of it to this network, so the plain file is spoilt that way: the gate must find it."""

from collections.abc import Callable

import numpy as np
import onnx
import torch
from case import PublishedBug
from onnx import numpy_helper
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=(1, 0))
        self.norm = nn.LayerNorm(8, eps=1e-3)
        self.slope = nn.LeakyReLU(0.02)
        self.up = nn.Upsample(scale_factor=2.5)
        self.head = nn.Linear(8, 8)
        self.register_buffer("mean", torch.tensor([0.48, 0.46, 0.41]).reshape(3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x - self.mean)
        return self.up(self.slope(self.head(self.norm(y)))), y.softmax(1)


def attribute(operator: str, name: str, value: object) -> Callable[[onnx.ModelProto], None]:
    """Another value of an operator's attribute."""

    def spoil(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == operator)
        kept = [found for found in node.attribute if found.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])

    return spoil


def weight(ending: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    """Another value of the first weight whose shape is `ending`."""

    def spoil(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if "x".join(map(str, tensor.dims)) == ending:
                changed = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
                tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
                return
        raise LookupError(ending)

    return spoil


def frozen_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2


def left_out(operator: str) -> Callable[[onnx.ModelProto], None]:
    """The operator does nothing."""

    def spoil(model: onnx.ModelProto) -> None:
        (node,) = (node for node in model.graph.node if node.op_type == operator)
        same = onnx.helper.make_node("Identity", [node.input[0]], [node.output[0]])
        node.CopyFrom(same)

    return spoil


def as_float16(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


SPOILT: dict[str, tuple[str, Callable[[onnx.ModelProto], None]]] = {
    "padding on the other side": ("Louloudakis et al.: hyperparameters", attribute("Conv", "pads", [2, 0, 0, 0])),
    "another epsilon": ("Louloudakis et al.: hyperparameters", attribute("LayerNormalization", "epsilon", 1e-5)),
    "another slope": ("Louloudakis et al.: hyperparameters", attribute("LeakyRelu", "alpha", 0.01)),
    "weights of another layout": ("Louloudakis et al.: weights", weight("8x8", np.transpose)),
    "kernels of another layout": ("Louloudakis et al.: weights", weight("4x3x3x3", lambda w: w.swapaxes(2, 3))),
    "a bias lost": ("Louloudakis et al.: weights", weight("4", np.zeros_like)),
    "another mean in preprocessing": ("Louloudakis et al.: preprocessing", weight("3x1x1", lambda m: m[::-1])),
    "pixels resized by another rule": ("Louloudakis et al.: graph", attribute("Resize", "nearest_mode", "ceil")),
    "an operator left out": ("Jajal et al.: operators", left_out("LeakyRelu")),
    "softmax over another axis": ("Jajal et al.: operators", attribute("Softmax", "axis", 2)),
    "weights through float16": ("Jajal et al.: types", weight("8x8", as_float16)),
    "a batch that is fixed": ("Jajal et al.: shapes", frozen_batch),
}

IMAGES = torch.rand(2, 3, 8, 17, generator=torch.Generator().manual_seed(0))
WRONG_FILES = {name: PublishedBug(source, Net, (IMAGES,), spoilt=spoil) for name, (source, spoil) in SPOILT.items()}
