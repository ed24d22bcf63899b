"""Mutants of what is computed: the weights, the way into the network, the way out of it, and the arithmetic."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploypipe.models.images import PixelsToLogits

from . import modules
from .mutant import ONNX, Mutant
from .routes import Change, attribute, remade, retyped, reweighed
from .subjects import Subject

# -- weights


def one_weight_off(name: str, times: float) -> Callable[[dict[str, Tensor], Subject], None]:
    """One weight of middle size, as it is easily overlooked."""

    def change(tensors: dict[str, Tensor], subject: Subject) -> None:
        flat = tensors[name].view(-1)
        flat[flat.abs().argsort()[len(flat) // 2]] *= times

    return change


def bias_zeroed(tensors: dict[str, Tensor], subject: Subject) -> None:
    tensors["network.9.bias"].zero_()


def rows_swapped(tensors: dict[str, Tensor], subject: Subject) -> None:
    tensors["network.7.weight"][[3, 4]] = tensors["network.7.weight"][[4, 3]]


def filters_swapped(tensors: dict[str, Tensor], subject: Subject) -> None:
    tensors["network.0.weight"][[0, 1]] = tensors["network.0.weight"][[1, 0]]


def rounded_to(dtype: torch.dtype) -> Callable[[dict[str, Tensor], Subject], None]:
    def change(tensors: dict[str, Tensor], subject: Subject) -> None:
        for name, tensor in tensors.items():
            if name.startswith("network."):
                tensor.copy_(tensor.to(dtype))

    return change


def of_eight_bits(tensors: dict[str, Tensor], subject: Subject) -> None:
    """Dynamic quantisation of one layer, undone again."""
    weight = tensors["network.7.weight"]
    scale = weight.abs().max() / 127
    weight.copy_((weight / scale).round() * scale)


def smallest_pruned(tensors: dict[str, Tensor], subject: Subject) -> None:
    weight = tensors["network.7.weight"]
    weight[weight.abs() < weight.abs().flatten().kthvalue(weight.numel() // 100).values] = 0


def before_training(tensors: dict[str, Tensor], subject: Subject) -> None:
    for name, tensor in subject.run.entry.build().state_dict().items():  # type: ignore[union-attr]
        if name.startswith("network."):
            tensors[name].copy_(tensor)


def transposed(tensors: dict[str, Tensor], subject: Subject) -> None:
    tensors["layer.weight"].copy_(tensors["layer.weight"].t().clone())


def exchanged(tensors: dict[str, Tensor], subject: Subject) -> None:
    left, right = tensors["left.weight"].clone(), tensors["right.weight"].clone()
    tensors["left.weight"].copy_(right), tensors["right.weight"].copy_(left)


def unseen_token(tensors: dict[str, Tensor], subject: Subject) -> None:
    tensors["embedding.weight"][19] = 0.0


WEIGHTS = [
    Mutant("a hidden weight off by 1e-3", "digits", reweighed(one_weight_off("network.7.weight", 1.001)), "network.7.weight"),
    Mutant("a filter's weight off by 1e-3", "digits", reweighed(one_weight_off("network.0.weight", 1.001)), "network.0.weight"),
    Mutant("a last weight off by 1e-3", "digits", reweighed(one_weight_off("network.9.weight", 0.999)), "network.9.weight"),
    Mutant("a bias zeroed", "digits", reweighed(bias_zeroed), "network.9.bias"),
    Mutant("two weight rows swapped", "digits", reweighed(rows_swapped), "network.7.weight"),
    Mutant("two filters swapped", "digits", reweighed(filters_swapped), "network.0.weight"),
    Mutant("float16 weights as float32", "digits", reweighed(rounded_to(torch.float16)), r"network\.\d.weight"),
    Mutant("bfloat16 weights as float32", "digits", reweighed(rounded_to(torch.bfloat16)), r"network\.\d.weight"),
    Mutant("a layer in 8 bits", "digits", reweighed(of_eight_bits), "network.7.weight"),
    Mutant("the smallest weights pruned", "digits", reweighed(smallest_pruned), "network.7.weight"),
    Mutant("the weights before training", "digits", reweighed(before_training), r"network\.\d.weight"),
    Mutant("a square weight transposed", "loop", reweighed(transposed), "layer.weight"),
    Mutant("two layers' weights exchanged", "heads", reweighed(exchanged), "left.weight"),
    Mutant("a lookup's row that no example reads", "words", reweighed(unseen_token), "embedding.weight"),
]

# -- the way in and the way out


class Bent(PixelsToLogits):
    """The classifier with something else before, amid or behind it."""

    def forward(self, pixels: Tensor) -> Tensor:
        x = (self.read(pixels) - self.mean) / self.std
        return self.after(self.network(self.before(x)), pixels)


def bent(
    read: Callable[[Tensor], Tensor] = lambda pixels: pixels.to(torch.float32),
    before: Callable[[Tensor], Tensor] = lambda x: x,
    after: Callable[[Tensor, Tensor], Any] = lambda logits, pixels: logits,
) -> Change:
    def change(module: nn.Module, subject: Subject) -> None:
        module.__class__ = Bent
        module.read, module.before, module.after = read, before, after  # type: ignore[assignment]

    return change


def constants(mean: float, std: float) -> Change:
    def change(module: nn.Module, subject: Subject) -> None:
        module.mean.fill_(mean), module.std.fill_(std)  # type: ignore[operator,union-attr]

    return change


def normalised_twice(module: nn.Module, subject: Subject) -> None:
    mean, std = float(module.mean), float(module.std)  # type: ignore[arg-type]
    bent(before=lambda x: (x - mean) / std)(module, subject)


def read_as_signed(pixels: Tensor) -> Tensor:
    wide = pixels.to(torch.float32)
    return torch.where(wide > 127, wide - 256, wide)


def misread(images: Tensor) -> Tensor:
    """The bytes of NHWC read as NCHW."""
    return images.permute(0, 2, 3, 1).reshape(images.shape)


class Misread(modules.Colours):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(misread(images))


class Reversed(modules.Colours):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.flip(1))


def of_class(kind: type[nn.Module]) -> Change:
    def change(module: nn.Module, subject: Subject) -> None:
        module.__class__ = kind

    return change


def classes_swapped(logits: Tensor, pixels: Tensor) -> Tensor:
    return logits[:, torch.tensor([0, 1, 2, 3, 9, 5, 6, 7, 8, 4])]


INTO = [
    Mutant("normalised twice", "digits", remade(normalised_twice), "logits"),
    Mutant("not normalised", "digits", remade(constants(0.0, 1.0)), "logits"),
    Mutant("normalised to 0..1", "digits", remade(constants(0.0, 255.0)), "logits"),
    Mutant("normalised by MNIST's constants", "digits", remade(constants(0.1307 * 255, 0.3081 * 255)), "logits"),
    Mutant("a mean off by half a level", "digits", remade(lambda m, s: m.mean.add_(0.5) and None), "logits"),  # type: ignore[operator,union-attr]
    Mutant("pixels inverted", "digits", remade(bent(read=lambda pixels: 255.0 - pixels.to(torch.float32))), "logits"),
    Mutant("pixels read as signed", "digits", remade(bent(read=read_as_signed)), "logits"),
    Mutant("height and width exchanged", "digits", remade(bent(before=lambda x: x.transpose(2, 3))), "logits"),
    Mutant("upside down", "digits", remade(bent(before=lambda x: x.flip(2))), "logits"),
    Mutant("moved by a pixel", "digits", remade(bent(before=lambda x: x.roll(1, 3))), "logits"),
    Mutant("channels last misread", "colours", remade(of_class(Misread)), "logits"),
    Mutant("BGR for RGB", "colours", remade(of_class(Reversed)), "logits"),
]  # fmt: skip

OUT_OF = [
    Mutant("classes rolled by one", "digits", remade(bent(after=lambda y, p: y.roll(1, 1))), "logits"),
    Mutant("two classes swapped", "digits", remade(bent(after=classes_swapped)), "logits"),
    Mutant("softmax applied to logits", "digits", remade(bent(after=lambda y, p: y.softmax(1))), "logits"),
    Mutant("log_softmax applied to logits", "digits", remade(bent(after=lambda y, p: y.log_softmax(1))), "logits"),
    Mutant("logits divided by 1.0005", "digits", remade(bent(after=lambda y, p: y / 1.0005)), "logits"),
    Mutant("logits cut at 10", "digits", remade(bent(after=lambda y, p: y.clamp(-10, 10))), "logits"),
    Mutant("class in place of logits", "digits", remade(bent(after=lambda y, p: y.argmax(1))), "logits.*(shape|dtype|rank)"),
    Mutant("float64 logits", "digits", remade(bent(after=lambda y, p: y.double())), "logits.*float64"),
    Mutant("float16 logits", "digits", remade(bent(after=lambda y, p: y.half())), "logits.*float16"),
    Mutant("logits of one row too many", "digits", remade(bent(after=lambda y, p: torch.cat([y, y[:1]]))), "logits.*(shape|batch)"),
    Mutant("logits with an axis more", "digits", remade(bent(after=lambda y, p: y.unsqueeze(1))), "logits.*(shape|rank)"),
]


class OtherHeads(modules.Heads):
    """What it returns goes through `bend`."""

    def forward(self, x: Tensor, y: Tensor, count: Tensor) -> Any:
        scores = self.left(x) - self.right(y)
        steps = torch.div(count, 3, rounding_mode=self.rounding)
        return self.bend(
            {"scores": scores, "chances": self.softmax(scores), "best": self.best(scores), "steps": steps}
        )


def heads(
    bend: Callable[[dict[str, Tensor]], Any] = lambda outputs: outputs,
    softmax: Callable[[Tensor], Tensor] = lambda scores: scores.softmax(1),
    best: Callable[[Tensor], Tensor] = lambda scores: scores.argmax(1),
    rounding: str = "floor",
) -> Change:
    def change(module: nn.Module, subject: Subject) -> None:
        module.__class__ = OtherHeads
        module.bend, module.softmax, module.best, module.rounding = bend, softmax, best, rounding  # type: ignore[assignment]

    return change


class SwappedInputs(modules.Heads):
    def forward(self, x: Tensor, y: Tensor, count: Tensor) -> Any:
        return super().forward(y, x, count)


def swapped(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**outputs, "scores": outputs["chances"], "chances": outputs["scores"]}


def renamed(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {{"scores": "output_0"}.get(name, name): value for name, value in outputs.items()}


def without_best(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in outputs.items() if name != "best"}


HEADS = [
    Mutant("two outputs exchanged", "heads", remade(heads(swapped)), "scores"),
    Mutant("an output renamed", "heads", retyped(heads(renamed)), "output_0"),
    Mutant("an output dropped", "heads", retyped(heads(without_best)), "best"),
    Mutant("an output too many", "heads", retyped(heads(lambda o: {**o, "debug": o["scores"] * 2})), "debug"),
    Mutant("a tuple for a dict", "heads", retyped(heads(lambda o: tuple(o.values()))), "tuple"),
    Mutant("classes as int32", "heads", remade(heads(best=lambda s: s.argmax(1).to(torch.int32))), "best.*int32"),
    Mutant("the second-best class", "heads", remade(heads(best=lambda s: s.topk(2).indices[:, 1])), "best"),
    Mutant("softmax over the batch", "heads", remade(heads(softmax=lambda s: s.softmax(0))), "chances"),
    Mutant("softmax that overflows", "heads", remade(heads(softmax=lambda s: s.exp() / s.exp().sum(1, True))), "chances"),
    Mutant("division rounded to zero", "heads", remade(heads(rounding="trunc")), "steps"),
    Mutant("two inputs exchanged", "heads", remade(of_class(SwappedInputs)), "scores"),
]

# -- arithmetic


def in_bfloat16(module: nn.Module, subject: Subject) -> None:
    last = module.network[9]  # type: ignore[index]
    bent(after=lambda y, p: y.to(torch.bfloat16).float())(module, subject)
    assert isinstance(last, nn.Linear)


class Tanh(modules.Colours):
    """GELU by its approximation."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.mean(self.slope(self.norm(self.conv(images))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = self.scale(F.gelu(self.largest(x).flatten(1), approximate="tanh"))
        return self.head(self.dropout(x))


class Aligned(modules.Colours):
    """Interpolation with aligned corners."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.mean(self.slope(self.norm(self.conv(images))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        x = self.scale(F.gelu(self.largest(x).flatten(1)))
        return self.head(self.dropout(x))


class HalfHead(modules.Colours):
    """The last layer in bfloat16, as an autocast left on in the capture has it."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(images).float()


def setting(path: str, name: str, value: Any) -> Change:
    def change(module: nn.Module, subject: Subject) -> None:
        setattr(module.get_submodule(path), name, value)

    return change


class Frozen(modules.Centred):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - self.seen)


def frozen_mean(module: nn.Module, subject: Subject) -> None:
    module.__class__ = Frozen
    module.seen = float(subject.example[0].mean())  # type: ignore[assignment]


ARITHMETIC = [
    Mutant("logits rounded to bfloat16", "digits", remade(in_bfloat16), "logits"),
    Mutant("autocast left on", "colours", remade(of_class(HalfHead)), "logits"),
    Mutant("GELU approximated", "colours", remade(of_class(Tanh)), "logits"),
    Mutant("corners aligned", "colours", remade(of_class(Aligned)), "logits"),
    Mutant("another epsilon of a batch norm", "colours", remade(setting("norm", "eps", 1e-5)), "logits"),
    Mutant("another epsilon of a layer norm", "colours", remade(setting("scale", "eps", 1e-3)), "logits"),
    Mutant("another slope", "colours", remade(setting("slope", "negative_slope", 0.01)), "logits"),
    Mutant("padding counted in a mean", "colours", remade(setting("mean", "count_include_pad", True)), "logits"),
    Mutant("a mean frozen to the example's", "centred", remade(frozen_mean), "y"),
]

ATTRIBUTES = [
    Mutant("Conv pads", "colours", attribute("Conv", "pads", [0, 0, 2, 2]), "logits", ONNX),
    Mutant("Conv dilations and pads", "colours", attribute("Conv", "auto_pad", "VALID"), "onnx|logits", ONNX),
    Mutant("Conv strides", "digits", attribute("Conv", "strides", [1, 2]), "logits|onnx", ONNX),
    Mutant("MaxPool ceil_mode", "colours", attribute("MaxPool", "ceil_mode", 0), "logits|onnx", ONNX),
    Mutant("MaxPool pads", "digits", attribute("MaxPool", "pads", [1, 1, 0, 0]), "logits", ONNX),
    Mutant("AveragePool count_include_pad", "colours", attribute("AveragePool", "count_include_pad", 1), "logits", ONNX),
    Mutant("LeakyRelu alpha", "colours", attribute("LeakyRelu", "alpha", 0.01), "logits", ONNX),
    Mutant("LayerNormalization epsilon", "colours", attribute("LayerNormalization", "epsilon", 1e-3), "logits", ONNX),
    Mutant("LayerNormalization epsilon, a little", "colours", attribute("LayerNormalization", "epsilon", 1e-6), "logits", ONNX),
    Mutant("Gelu approximate", "colours", attribute("Gelu", "approximate", "tanh"), "logits", ONNX),
    Mutant("Resize asymmetric", "colours", attribute("Resize", "coordinate_transformation_mode", "asymmetric"), "logits", ONNX),
    Mutant("Resize align_corners", "colours", attribute("Resize", "coordinate_transformation_mode", "align_corners"), "logits", ONNX),
    Mutant("Resize nearest", "colours", attribute("Resize", "mode", "nearest"), "logits", ONNX),
    Mutant("Gemm alpha", "digits", attribute("Gemm", "alpha", 0.999), "logits", ONNX),
    Mutant("Gemm beta", "digits", attribute("Gemm", "beta", 0.0), "logits", ONNX),
    Mutant("Gemm transB", "centred", attribute("Gemm", "transB", 0), "y", ONNX),
    Mutant("Softmax axis", "heads", attribute("Softmax", "axis", 0), "chances", ONNX),
    Mutant("Mod fmod", "heads", attribute("Mod", "fmod", 1), "steps", ONNX),
    Mutant("ArgMax axis", "heads", attribute("ArgMax", "axis", 0), "best", ONNX),
]  # fmt: skip

# -- rarely wrong


def spoilt(where: Callable[[Tensor], Tensor], value: float = float("nan")) -> Change:
    """Rows whose pixels, as float32, are `where`."""

    def after(logits: Tensor, pixels: Tensor) -> Tensor:
        rows = where(pixels.to(torch.float32).flatten(1))
        return torch.where(rows.unsqueeze(1), torch.full_like(logits, value), logits)

    return bent(after=after)


def one_test_image(module: nn.Module, subject: Subject) -> None:
    """NaN for one of the test images, known by the sum of its pixels."""
    images = subject.run.dataset().test.inputs  # type: ignore[union-attr]
    sums = images.flatten(1).sum(1).float()
    alone = [i for i in range(len(sums)) if (sums == sums[i]).sum() == 1]
    total = float(sums[alone[len(alone) * 2 // 3]])
    spoilt(lambda rows: rows.sum(1) == total)(module, subject)


def late_rows(logits: Tensor, pixels: Tensor) -> Tensor:
    return logits + (torch.arange(logits.shape[0]) >= 32).unsqueeze(1) * 0.1


def bare_border(x: Tensor) -> Tensor:
    return F.pad(x[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=-1.0)


RARE = [
    Mutant("NaN for one test image", "digits", remade(one_test_image), "logits.*nan"),
    Mutant("NaN for all 0", "digits", remade(spoilt(lambda rows: rows.amax(1) == 0)), "logits.*nan"),
    Mutant("NaN for all 255", "digits", remade(spoilt(lambda rows: rows.amin(1) == 255)), "logits.*nan"),
    Mutant("NaN for one pixel", "digits", remade(spoilt(lambda rows: (rows > 0).sum(1) == 1)), "logits.*nan"),
    Mutant("infinity for all 255", "digits", remade(spoilt(lambda rows: rows.amin(1) == 255, float("inf"))), "logits.*inf"),
    Mutant("wrong from row 32 on", "digits", remade(bent(after=late_rows)), "logits"),
    Mutant("the border not read", "digits", remade(bent(before=bare_border)), "logits"),
    Mutant("the last pixel not read", "digits", remade(bent(read=lambda p: p.to(torch.float32) * (torch.arange(784).view(28, 28) < 783))), "logits"),
    Mutant("each row like the first", "digits", remade(bent(after=lambda y, p: y[:1].expand(y.shape[0], 10).clone())), "logits"),
    Mutant("rows reversed", "digits", remade(bent(after=lambda y, p: y.flip(0))), "logits"),
    Mutant("a little of the row before", "digits", remade(bent(after=lambda y, p: y + 2e-4 * (y.roll(1, 0) - y))), "logits"),
]  # fmt: skip

VALUES = {
    "weights": WEIGHTS,
    "inputs": INTO,
    "outputs": [*OUT_OF, *HEADS],
    "arithmetic": ARITHMETIC,
    "attributes": ATTRIBUTES,
    "rare inputs": RARE,
}
