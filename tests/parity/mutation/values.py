"""Mutants of what is computed: the weights, what enters the network, what leaves it, and the arithmetic."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploypipe.data import dataset_of
from deploypipe.models import entry_of
from deploypipe.models.classifiers import PixelsToLogits

from . import modules
from .mutant import ONNX, PT2, Mutant, alike
from .routes import Change, attribute, remade, retyped, reweighed
from .subjects import Subject

# -- weights


def off(name: str, times: float) -> Callable[[dict[str, Tensor], Subject], None]:
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
    for name, tensor in entry_of(subject.run.model).build().state_dict().items():  # type: ignore[union-attr]
        if name.startswith("network."):
            tensors[name].copy_(tensor)


def transposed(tensors: dict[str, Tensor], subject: Subject) -> None:
    tensors["layer.weight"].copy_(tensors["layer.weight"].t().clone())


def exchanged(tensors: dict[str, Tensor], subject: Subject) -> None:
    left, right = tensors["left.weight"].clone(), tensors["right.weight"].clone()
    tensors["left.weight"].copy_(right), tensors["right.weight"].copy_(left)


def unseen_token(tensors: dict[str, Tensor], subject: Subject) -> None:
    tensors["embedding.weight"][19] = 0.0


def weights(subject: str, layer: str, changes: dict[str, Callable[[dict[str, Tensor], Subject], None]]) -> list[Mutant]:
    """Mutants of the tensors of one layer; "" for all layers."""
    name = re.escape(layer) or r"network\.\d"
    makes = [(what, reweighed(change)) for what, change in changes.items()]
    return alike(subject, name, makes, culprit=name)


WEIGHTS = [
    *weights("digits", "network.0", {"a filter's weight off by 1e-3": off("network.0.weight", 1.001),
                                     "two filters swapped": filters_swapped}),
    *weights("digits", "network.7", {"a hidden weight off by 1e-3": off("network.7.weight", 1.001),
                                     "two weight rows swapped": rows_swapped,
                                     "a layer in 8 bits": of_eight_bits,
                                     "the smallest weights pruned": smallest_pruned}),
    *weights("digits", "network.9", {"a last weight off by 1e-3": off("network.9.weight", 0.999),
                                     "a bias zeroed": bias_zeroed}),
    *weights("digits", "", {"float16 weights as float32": rounded_to(torch.float16),
                            "bfloat16 weights as float32": rounded_to(torch.bfloat16),
                            "the weights before training": before_training}),
    *weights("loop", "layer", {"a square weight transposed": transposed}),
    *weights("heads", "left", {"two layers' weights exchanged": exchanged}),
    # In a loop's body, and localisation ends at the loop.
    Mutant("a lookup's row that no example reads", "words", reweighed(unseen_token), r"embedding\.weight"),
]  # fmt: skip

# -- what enters and what leaves


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


def mean_off(module: nn.Module, subject: Subject) -> None:
    module.mean.add_(0.5)  # type: ignore[operator,union-attr]


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


def cut(module: nn.Module, subject: Subject) -> None:
    """As a quantised output does: what only the largest of all test images reaches."""
    images = dataset_of(subject.run).test.inputs  # type: ignore[union-attr]
    with torch.no_grad():
        limit = 0.99 * float(subject.module(images).max())
    bent(after=lambda y, p: y.clamp(max=limit))(module, subject)


INTO = [
    *alike("digits", "logits", [
        ("normalised twice", remade(normalised_twice)),
        ("not normalised", remade(constants(0.0, 1.0))),
        ("normalised to 0..1", remade(constants(0.0, 255.0))),
        ("normalised by MNIST's constants", remade(constants(0.1307 * 255, 0.3081 * 255))),
        ("a mean off by half a level", remade(mean_off)),
        ("pixels inverted", remade(bent(read=lambda pixels: 255.0 - pixels.to(torch.float32)))),
        ("pixels read as signed", remade(bent(read=read_as_signed))),
        ("height and width exchanged", remade(bent(before=lambda x: x.transpose(2, 3)))),
        ("upside down", remade(bent(before=lambda x: x.flip(2)))),
        ("moved by a pixel", remade(bent(before=lambda x: x.roll(1, 3)))),
    ]),
    *alike("colours", "logits", [
        ("channels last misread", remade(of_class(Misread))),
        ("BGR for RGB", remade(of_class(Reversed))),
    ]),
]  # fmt: skip

OUT_OF = [
    *alike("digits", "logits", [
        ("classes rolled by one", remade(bent(after=lambda y, p: y.roll(1, 1)))),
        ("two classes swapped", remade(bent(after=classes_swapped))),
        ("softmax applied to logits", remade(bent(after=lambda y, p: y.softmax(1)))),
        ("log_softmax applied to logits", remade(bent(after=lambda y, p: y.log_softmax(1)))),
        ("logits divided by 1.0005", remade(bent(after=lambda y, p: y / 1.0005))),
        ("logits cut below the largest", remade(cut)),
    ]),
    *alike("digits", "logits.*(shape|dtype|rank)", [
        ("class in place of logits", remade(bent(after=lambda y, p: y.argmax(1)))),
        ("float64 logits", remade(bent(after=lambda y, p: y.double()))),
        ("float16 logits", remade(bent(after=lambda y, p: y.half()))),
        ("logits of a row too many", remade(bent(after=lambda y, p: torch.cat([y, y[:1]])))),
        ("logits with an axis more", remade(bent(after=lambda y, p: y.unsqueeze(1)))),
    ]),
]  # fmt: skip


class OtherHeads(modules.Heads):
    """What it returns goes through `bend`."""

    def forward(self, x: Tensor, y: Tensor, count: Tensor) -> Any:
        scores = self.left(x) - self.right(y)
        steps = torch.div(count, 3, rounding_mode=self.rounding)
        return self.bend({"scores": scores, "chances": self.softmax(scores), "best": self.best(scores), "steps": steps})


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


def bare_softmax(scores: Tensor) -> Tensor:
    return scores.exp() / scores.exp().sum(1, keepdim=True)


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
    Mutant("two outputs exchanged", "heads", remade(heads(swapped)), "scores|chances"),
    Mutant("an output renamed", "heads", retyped(heads(renamed)), "output_0"),
    Mutant("an output dropped", "heads", retyped(heads(without_best)), "best"),
    Mutant("an output too many", "heads", retyped(heads(lambda o: {**o, "debug": o["scores"] * 2})), "debug"),
    Mutant("a tuple for a dict", "heads", retyped(heads(lambda o: tuple(o.values()))), "tuple"),
    Mutant("classes as int32", "heads", remade(heads(best=lambda s: s.argmax(1).to(torch.int32))), "best.*int32"),
    Mutant("the second-best class", "heads", remade(heads(best=lambda s: s.topk(2).indices[:, 1])), "best"),
    Mutant("softmax over the batch", "heads", remade(heads(softmax=lambda s: s.softmax(0))), "chances"),
    Mutant(
        "softmax that overflows", "heads", remade(heads(softmax=lambda s: s.exp() / s.exp().sum(1, True))), "chances"
    ),
    Mutant("division rounded to zero", "heads", remade(heads(rounding="trunc")), "steps"),
    Mutant("two inputs exchanged", "heads", remade(of_class(SwappedInputs)), "scores|chances|best"),
]

# -- arithmetic


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


class AutoCast(modules.Colours):
    """An autocast that was left on in the capture."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(images).float()


class HalfHead(modules.Colours):
    """The last layer in float16."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.mean(self.slope(self.norm(self.conv(images))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = self.scale(F.gelu(self.largest(x).flatten(1)))
        return F.linear(x.half(), self.head.weight.half(), self.head.bias.half()).float()


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
    Mutant("an autocast left on", "colours", remade(of_class(AutoCast)), "logits", PT2),
    Mutant("a mean frozen to the example's", "centred", remade(frozen_mean), "y"),
    *alike("digits", "logits", [
        ("logits rounded to bfloat16", remade(bent(after=lambda y, p: y.to(torch.bfloat16).float()))),
    ]),
    *alike("colours", "logits", [
        ("the last layer in float16", remade(of_class(HalfHead))),
        ("GELU approximated", remade(of_class(Tanh))),
        ("corners aligned", remade(of_class(Aligned))),
        ("another epsilon of a batch norm", remade(setting("norm", "eps", 1e-5))),
        ("another epsilon of a layer norm", remade(setting("scale", "eps", 1e-3))),
        ("another slope", remade(setting("slope", "negative_slope", 0.01))),
        ("padding counted in a mean", remade(setting("mean", "count_include_pad", True))),
    ]),
]  # fmt: skip


def other(subject: str, operator: str, name: str, value: Any, culprit: str = "", reason: str = "logits") -> Mutant:
    """The subject's ONNX file with one attribute of one node changed."""
    label = f"{operator} {name} {value}"
    return Mutant(label, subject, attribute(operator, name, value), reason, ONNX, culprit or operator)


ATTRIBUTES = [
    other("colours", "Conv", "pads", [0, 0, 2, 2], "conv"),
    # The layer behind these fails, and nothing is left to bisect.
    Mutant("Conv strides [1, 2]", "digits", attribute("Conv", "strides", [1, 2]), "logits.*fails", ONNX),
    Mutant("MaxPool ceil_mode 0", "colours", attribute("MaxPool", "ceil_mode", 0), "logits.*fails", ONNX),
    other("digits", "MaxPool", "pads", [1, 1, 0, 0], "network.1"),
    other("colours", "AveragePool", "count_include_pad", 1, "mean"),
    other("colours", "LeakyRelu", "alpha", 0.01, "slope"),
    other("colours", "LayerNormalization", "epsilon", 1e-3, "scale"),
    other("colours", "LayerNormalization", "epsilon", 1e-6, "scale"),
    other("colours", "Gelu", "approximate", "tanh"),
    other("colours", "Resize", "coordinate_transformation_mode", "asymmetric", "Resize|upsample"),
    other("colours", "Resize", "coordinate_transformation_mode", "align_corners", "Resize|upsample"),
    other("colours", "Resize", "mode", "nearest", "Resize|upsample"),
    other("digits", "Gemm", "alpha", 0.999, "network.7"),
    other("digits", "Gemm", "beta", 0.0, "network.7"),
    other("centred", "Gemm", "transB", 0, "layer", "y"),
    other("heads", "Softmax", "axis", 0, reason="chances"),
    other("heads", "Mod", "fmod", 1, reason="steps"),
    # Eager's answer for NaN is chosen by the shape of the input's, which no longer fits.
    Mutant("ArgMax axis 0", "heads", attribute("ArgMax", "axis", 0), "best.*fails", ONNX),
]

# -- rarely wrong


def spoilt(where: Callable[[Tensor], Tensor], value: float = float("nan")) -> Change:
    """Rows whose pixels, as float32, are `where`."""

    def after(logits: Tensor, pixels: Tensor) -> Tensor:
        rows = where(pixels.to(torch.float32).flatten(1))
        return torch.where(rows.unsqueeze(1), torch.full_like(logits, value), logits)

    return bent(after=after)


def one_test_image(module: nn.Module, subject: Subject) -> None:
    """NaN for one of the test images, known by the sum of its pixels."""
    images = dataset_of(subject.run).test.inputs  # type: ignore[union-attr]
    sums = images.flatten(1).sum(1).float()
    alone = [i for i in range(len(sums)) if (sums == sums[i]).sum() == 1]
    total = float(sums[alone[len(alone) * 2 // 3]])
    spoilt(lambda rows: rows.sum(1) == total)(module, subject)


def late_rows(logits: Tensor, pixels: Tensor) -> Tensor:
    return logits + (torch.arange(logits.shape[0]) >= 32).unsqueeze(1) * 0.1


def bare_border(x: Tensor) -> Tensor:
    return F.pad(x[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=-1.0)


def but_the_last_pixel(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32) * (torch.arange(784).view(28, 28) < 783)


RARE = [
    *alike("digits", "logits.*nan", [
        ("NaN for one test image", remade(one_test_image)),
        ("NaN for all 0", remade(spoilt(lambda rows: rows.amax(1) == 0))),
        ("NaN for all 255", remade(spoilt(lambda rows: rows.amin(1) == 255))),
        ("NaN for one pixel", remade(spoilt(lambda rows: (rows > 0).sum(1) == 1))),
    ]),
    *alike("digits", "logits", [
        ("infinity for all 255", remade(spoilt(lambda rows: rows.amin(1) == 255, float("inf")))),
        ("wrong from row 32 on", remade(bent(after=late_rows))),
        ("the border not read", remade(bent(before=bare_border))),
        ("the last pixel not read", remade(bent(read=but_the_last_pixel))),
        ("each row like the first", remade(bent(after=lambda y, p: y[:1].expand(y.shape[0], 10).clone()))),
        ("rows reversed", remade(bent(after=lambda y, p: y.flip(0)))),
        ("a little of the row before", remade(bent(after=lambda y, p: y + 2e-4 * (y.roll(1, 0) - y)))),
    ]),
]  # fmt: skip

VALUES = {
    "weights": WEIGHTS,
    "inputs": INTO,
    "outputs": [*OUT_OF, *HEADS],
    "arithmetic": ARITHMETIC,
    "attributes": ATTRIBUTES,
    "rare inputs": RARE,
}
