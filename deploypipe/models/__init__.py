"""The zoo: the networks, by name. An entry here is all that the rest of deploypipe needs to know of one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deploypipe.artifact import IMAGE_CLASSIFICATION, TENSORS
from deploypipe.capture import Axes
from deploypipe.errors import UsageError
from deploypipe.models import dynamic, images

DEFAULT = "lean-cnn"


@dataclass(frozen=True)
class Entry:
    summary: str
    build: Callable[[], nn.Module]
    example: Callable[[], tuple[Tensor, ...]]
    dynamic: Axes
    outputs: tuple[str, ...]
    datasets: tuple[str, ...] = ()
    """Datasets it trains on, the default first ("auto": MNIST where it can be had); none when it cannot be trained."""
    optimizer: str = "adam"
    """What it trains with unless told otherwise."""
    recipe: str = "plain"
    """The settings it trains with unless told otherwise: a name of deploypipe.training.recipes."""
    task: str = TENSORS


def _image_classifier(summary: str, network: Callable[[], nn.Module], recipe: str = "plain") -> Entry:
    return Entry(
        summary,
        build=lambda: images.PixelsToLogits(network()),
        example=lambda: (torch.zeros(2, 1, 28, 28, dtype=torch.uint8),),
        dynamic={"pixels": {0: "batch"}},
        outputs=("logits",),
        datasets=("auto", "mnist", "fashion-mnist", "digits"),
        recipe=recipe,
        task=IMAGE_CLASSIFICATION,
    )


MODELS: dict[str, Entry] = {
    "lean-cnn": _image_classifier(
        "conv 16, conv 32, 128 hidden, batch normalisation: the default", images.lean_cnn, "fast"
    ),
    "wide-cnn": _image_classifier(
        "conv 32, 64, 128, batch normalisation: the most accurate", images.wide_cnn, "accurate"
    ),
    "cnn": _image_classifier("conv 32, conv 64, 1024 hidden, dropout", images.cnn),
    "simple-cnn": _image_classifier("conv 10, conv 20, 50 hidden", images.simple_cnn),
    "mlp": _image_classifier("784 → 128 → 10", images.mlp),
    "linear-regression": Entry(
        "y = wx + b",
        build=lambda: nn.Linear(1, 1),
        example=lambda: (torch.tensor([[0.5], [-1.0]]),),
        dynamic={"input": {0: "batch"}},
        outputs=("y",),
        datasets=("line",),
        optimizer="sgd",
    ),
    "dynamic-branch": Entry(
        "x * 2 if x.sum() > 0 else x + 1",
        build=dynamic.DynamicBranch,
        example=lambda: (torch.linspace(-1, 2, 20).reshape(2, 10),),
        dynamic={"x": {0: "batch"}},
        outputs=("y",),
    ),
    "dynamic-depth": Entry(
        "one 10 → 10 layer, applied as often as an input says",
        build=dynamic.DynamicDepth,
        example=lambda: (torch.linspace(-1, 2, 20).reshape(2, 10), torch.tensor(3)),
        dynamic={"x": {0: "batch"}},
        outputs=("y",),
    ),
    "sentence": Entry(
        "token sequences of any length: embedding, one recurrent step a token, linear head",
        build=dynamic.Sentence,
        example=lambda: (torch.arange(12).reshape(2, 6) % 100,),
        dynamic={"tokens": {0: "batch", 1: "length"}},
        outputs=("logits",),
        datasets=("sentences",),
    ),
}


def entry_of(name: str) -> Entry:
    if name not in MODELS:
        raise UsageError(f"no model {name!r}", f"There are: {', '.join(MODELS)}.")
    return MODELS[name]
