"""The networks of the zoo by name, with all that the rest of deploypipe needs to know of one. Reading this needs no
torch: a network's own module is imported when it is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from deploypipe.contract.tasks import IMAGE_CLASSIFICATION, TENSORS
from deploypipe.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT = "lean-cnn"
ROOM = "deploypipe.models"


@dataclass(frozen=True)
class Entry:
    summary: str
    network: str
    """`package.module:name` of what builds it when it is called without arguments."""
    inputs: str
    """`package.module:name` of a function that returns example inputs."""
    dynamic: Mapping[str, Mapping[int, str]]
    """Argument name → axis → symbol."""
    outputs: tuple[str, ...]
    datasets: tuple[str, ...] = ()
    """Datasets it trains on, the default first ("auto": MNIST where it can be had); none when it cannot be trained."""
    optimizer: str = "adam"
    """What it trains with unless another is given."""
    recipe: str = "plain"
    """The settings it trains with unless others are given: a name of deploypipe.training.recipes."""
    task: str = TENSORS

    def build(self) -> "nn.Module":
        module: nn.Module = _imported(self.network)()
        return module

    def example(self) -> "tuple[Tensor, ...]":
        inputs: tuple[Tensor, ...] = _imported(self.inputs)()
        return inputs


def _imported(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _image_classifier(summary: str, network: str, recipe: str = "plain") -> Entry:
    return Entry(
        summary,
        network=f"{ROOM}.classifiers:{network}",
        inputs=f"{ROOM}.examples:black_images",
        dynamic={"pixels": {0: "batch"}},
        outputs=("logits",),
        datasets=("auto", "mnist", "fashion-mnist", "digits"),
        recipe=recipe,
        task=IMAGE_CLASSIFICATION,
    )


MODELS: dict[str, Entry] = {
    "lean-cnn": _image_classifier("conv 16, conv 32, 128 hidden, batch normalisation: the default", "lean_cnn", "fast"),
    "wide-cnn": _image_classifier("conv 32, 64, 128, batch normalisation: the most accurate", "wide_cnn", "accurate"),
    "cnn": _image_classifier("conv 32, conv 64, 1024 hidden, dropout", "cnn"),
    "simple-cnn": _image_classifier("conv 10, conv 20, 50 hidden", "simple_cnn"),
    "mlp": _image_classifier("784 → 128 → 10", "mlp"),
    "linear-regression": Entry(
        "y = wx + b",
        network=f"{ROOM}.regression:straight_line",
        inputs=f"{ROOM}.examples:points",
        dynamic={"input": {0: "batch"}},
        outputs=("y",),
        datasets=("line",),
        optimizer="sgd",
    ),
    "dynamic-branch": Entry(
        "x * 2 if x.sum() > 0 else x + 1",
        network=f"{ROOM}.dynamic:DynamicBranch",
        inputs=f"{ROOM}.examples:vectors",
        dynamic={"x": {0: "batch"}},
        outputs=("y",),
    ),
    "dynamic-depth": Entry(
        "one 10 → 10 layer, applied as often as an input says",
        network=f"{ROOM}.dynamic:DynamicDepth",
        inputs=f"{ROOM}.examples:vectors_and_depth",
        dynamic={"x": {0: "batch"}},
        outputs=("y",),
    ),
    "sentence": Entry(
        "token sequences of any length: embedding, one recurrent step a token, linear head",
        network=f"{ROOM}.dynamic:Sentence",
        inputs=f"{ROOM}.examples:token_sequences",
        dynamic={"tokens": {0: "batch", 1: "length"}},
        outputs=("logits",),
        datasets=("sentences",),
    ),
}


def entry_of(name: str) -> Entry:
    """UsageError, with the names that there are, for another one."""
    if name not in MODELS:
        raise UsageError(f"no model {name!r}", f"There are: {', '.join(MODELS)}.")
    return MODELS[name]
