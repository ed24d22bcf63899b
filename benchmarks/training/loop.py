"""One training as tutorials write it, measured: what the baselines beside this file share.

Images come one at a time out of torchvision's dataset, through PIL and transforms, into a DataLoader, and the test set
is evaluated after each epoch. Two clocks run from the moment that data and network are ready: one of the training
alone, one with the evaluations. Both stop at the first epoch that reaches the target, or after the published epochs.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from deploypipe.data import Dataset, Split, load_dataset

TARGET = 0.99


@dataclass(frozen=True)
class Recipe:
    """Published settings: everything that decides the weights, besides the seed."""

    name: str
    network: Callable[[], nn.Module]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    batch_size: int
    epochs: int
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    """Stepped after each epoch."""
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    shuffled_on_cpu: bool = True


@dataclass(frozen=True)
class Epoch:
    epoch: int
    accuracy: float
    """On the test set, a fraction of 1."""
    seconds: float
    """Since the beginning, evaluations not counted."""
    seconds_with_evaluation: float


class PerImage(datasets.MNIST):
    """torchvision's MNIST dataset, one PIL image and its transforms at a time, over tensors that are already read."""

    def __init__(self, split: Split, limit: int | None) -> None:
        steps = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
        datasets.VisionDataset.__init__(self, transform=transforms.Compose(steps))
        self.data, self.targets = split.inputs[:limit, 0], split.targets[:limit]


def measure(
    recipe: Recipe, dataset: Dataset, *, seed: int, epochs: int | None = None, limit: int | None = None
) -> dict[str, Any]:
    """What `recipe` reached after each epoch, and when; `limit` takes so many images only, `epochs` replaces the
    published number. A JSON-able document."""
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    # On a GPU, what pytorch/examples does there: a worker that loads while the GPU computes.
    options: dict[str, Any] = {"num_workers": 1, "pin_memory": True, "persistent_workers": True} if gpu else {}
    train, test = PerImage(dataset.train, limit), PerImage(dataset.test, limit)
    batches = DataLoader(train, batch_size=recipe.batch_size, shuffle=gpu or recipe.shuffled_on_cpu, **options)
    test_batches = DataLoader(test, batch_size=1000, **options)
    network = recipe.network().to(device)
    optimizer = recipe.optimizer(network.parameters())
    scheduler = recipe.scheduler(optimizer) if recipe.scheduler else None

    rows: list[Epoch] = []
    begun, evaluating = time.perf_counter(), 0.0
    for epoch in range(1, (epochs or recipe.epochs) + 1):
        _one_epoch(network, batches, optimizer, recipe.loss, device)
        trained = time.perf_counter() - begun - evaluating
        accuracy = _accuracy(network, test_batches, device)
        whole = time.perf_counter() - begun
        evaluating = whole - trained
        rows.append(Epoch(epoch, accuracy, trained, whole))
        if accuracy >= TARGET:
            break
        if scheduler:
            scheduler.step()
    return {
        "program": recipe.name,
        "seed": seed,
        "data": dataset.name,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "epochs": [asdict(row) for row in rows],
        "accuracy": rows[-1].accuracy,
        "seconds": rows[-1].seconds,
        "seconds_with_evaluation": rows[-1].seconds_with_evaluation,
        "reached": rows[-1].accuracy >= TARGET,
        "images_per_second": len(train) * len(rows) / rows[-1].seconds,
    }


def _one_epoch(
    network: nn.Module,
    batches: "DataLoader[Any]",
    optimizer: Optimizer,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
) -> None:
    network.train()
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = loss_of(network(images), labels)
        torch.autograd.backward(loss)
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()  # or the clock would stop before the GPU does


def _accuracy(network: nn.Module, batches: "DataLoader[Any]", device: torch.device) -> float:
    network.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in batches:
            predicted = network(images.to(device)).argmax(1).cpu()
            correct += int((predicted == labels).sum())
            total += len(labels)
    return correct / total


def main(recipe: Recipe, description: str | None) -> None:
    """The command line of one baseline: prints its document."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path, help="default: where deploypipe looks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help=f"default: the published {recipe.epochs}")
    parser.add_argument("--limit", type=int, help="so many images of each split only; for a quick try")
    asked = parser.parse_args()
    dataset = load_dataset(asked.data, asked.data_dir)
    print(json.dumps(measure(recipe, dataset, seed=asked.seed, epochs=asked.epochs, limit=asked.limit)))
