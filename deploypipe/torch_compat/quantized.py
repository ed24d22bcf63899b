"""Linear layers that `torch.ao.quantization.quantize_dynamic` made, as modules of ordinary operators.

Their kernels are torch's own and no format has them. What they compute is written down in torch's source
(`ATen/native/quantized/cpu/QuantUtils.h` and fbgemm's `OutputProcessing`), and is computed here in the same order, so
that results are the same to the bit.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.ao.nn.intrinsic.quantized.dynamic import LinearReLU
from torch.ao.nn.quantized.dynamic import Linear

SMALLEST_SCALE = 6.1e-5
"""`SMALL_SCALE_THRESHOLD`: what float16 still has as a normal number."""
LEVELS = 127.0
"""Activations take half of eight bits, `reduce_range`, so that sums of products fit into 16."""
ROOM = 255.0


def is_emulated(module: nn.Module) -> bool:
    """Whether it is one of the layers that `emulated` replaces, or a part of one."""
    return type(module) in (Linear, LinearReLU) or type(module).__name__ == "LinearPackedParams"


def emulated(module: nn.Module) -> nn.Module:
    """A copy without such layers, or the module itself where it has none."""
    if not any(type(part) in (Linear, LinearReLU) for part in module.modules()):
        return module
    if type(module) in (Linear, LinearReLU):
        return _emulated(module)
    module = copy.deepcopy(module)
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if type(child) in (Linear, LinearReLU):
                setattr(part, name, _emulated(child))
    return module


def hidden_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of such layers, which are neither parameters nor buffers of theirs, as floating-point numbers."""
    for name, part in module.named_modules():
        if type(part) in (Linear, LinearReLU):
            for weight, tensor in _emulated(part).named_buffers():
                yield f"{name}.{weight}" if name else weight, tensor


def _emulated(layer: nn.Module) -> nn.Module:
    weight, bias = layer._packed_params._weight_bias()  # type: ignore[union-attr, operator]
    bias = None if bias is None else bias.detach()
    relu = type(layer) is LinearReLU
    return _Dynamic(weight, bias, relu) if weight.is_quantized else _Float16(weight.detach(), bias, relu)


class _Float16(nn.Module):
    """Weights that were rounded to float16, computed with in float32."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        result = nn.functional.linear(x, self.weight, self.bias)
        return result.relu() if self.relu else result


class _Dynamic(nn.Module):
    """Weights as integers of eight bits; inputs are rounded to such, by their own range, in each call."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        super().__init__()
        per_channel = weight.qscheme() == torch.per_channel_affine
        scales = weight.q_per_channel_scales() if per_channel else torch.tensor(weight.q_scale())
        zero_points = weight.q_per_channel_zero_points() if per_channel else torch.tensor(weight.q_zero_point())
        whole = weight.int_repr().double() - zero_points.double().reshape(-1, 1)
        self.register_buffer("weight", whole)
        self.register_buffer("weight_scale", scales.float())
        self.register_buffer("bias", bias)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        low, high = x.amin().clamp(max=0.0), x.amax().clamp(min=0.0)
        scale, zero_point = _range_of(low.double(), high.double())
        single = scale.to(x.dtype)
        rounded = torch.round(x * (1.0 / single)) + zero_point.to(x.dtype)
        steps = rounded.clamp(0.0, ROOM) - zero_point.to(x.dtype)
        # In float64 sums of whole numbers are exact, whatever their order, and a product and a sum are rounded once.
        wide = nn.functional.linear(steps.double(), self.weight) * (single * self.weight_scale).double()
        result = (wide if self.bias is None else wide + self.bias.double()).to(x.dtype)
        return result.relu() if self.relu else result


def _range_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point for values between both, as `ChooseQuantizationParams` has them. Float64, without axes."""
    scale = (high - low) / LEVELS
    none = (scale.float() == 0) | (1.0 / scale.float()).isinf()
    scale = torch.where(none, 0.1, scale)
    from_low, from_high = -low / scale, LEVELS - high / scale
    # The one of which the smaller numbers are added has the smaller error.
    initial = torch.where(low / scale < LEVELS - (high / scale).abs(), from_low, from_high)
    zero_point = torch.round(initial.clamp(0.0, LEVELS))
    return torch.where(scale < SMALLEST_SCALE, SMALLEST_SCALE, scale), zero_point
