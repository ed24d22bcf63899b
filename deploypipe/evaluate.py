"""How good a model is on a split: accuracy, per-class precision and recall, confusion matrix; or the mean squared error
of a regression. For the eager module or any artifact: whatever maps a batch of inputs to outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploypipe.data import Split

BATCH = 1000


@dataclass(frozen=True)
class Metrics:
    """Rates are fractions of 1. A classification has `accuracy` and `confusion`, a regression `mean_squared_error`."""

    examples: int
    accuracy: float | None = None
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows are true classes, columns predicted ones."""
    mean_squared_error: float | None = None

    @property
    def precision(self) -> tuple[float, ...]:
        """Per class; 0 for a class that was never predicted."""
        matrix = torch.tensor(self.confusion)
        return tuple((matrix.diagonal() / matrix.sum(0).clamp(min=1)).tolist())

    @property
    def recall(self) -> tuple[float, ...]:
        """Per class; 0 for a class that the split does not have."""
        matrix = torch.tensor(self.confusion)
        return tuple((matrix.diagonal() / matrix.sum(1).clamp(min=1)).tolist())

    def to_json(self) -> dict[str, Any]:
        if self.accuracy is None:
            return {"examples": self.examples, "mean_squared_error": self.mean_squared_error}
        return {
            "examples": self.examples,
            "accuracy": self.accuracy,
            "precision": list(self.precision),
            "recall": list(self.recall),
            "confusion": [list(row) for row in self.confusion],
        }


def evaluate(predict: Callable[[Tensor], Tensor], split: Split, device: torch.device | str = "cpu") -> Metrics:
    """`predict` takes a batch of inputs on `device` and returns logits [batch, classes], or a regression's values."""
    return metrics_of(outputs_of(predict, split, device), split)


def outputs_of(predict: Callable[[Tensor], Tensor], split: Split, device: torch.device | str = "cpu") -> Tensor:
    """What `predict` makes of the whole split, on the CPU."""
    with torch.no_grad():
        return torch.cat([predict(batch.to(device)).cpu() for batch in torch.split(split.inputs, BATCH)])


def metrics_of(outputs: Tensor, split: Split) -> Metrics:
    if split.targets.is_floating_point():
        return Metrics(len(split), mean_squared_error=torch.nn.functional.mse_loss(outputs, split.targets).item())
    classes = outputs.shape[1]
    predicted = outputs.argmax(1)
    confusion = torch.bincount(split.targets * classes + predicted, minlength=classes**2).reshape(classes, classes)
    accuracy = (predicted == split.targets).double().mean().item()
    return Metrics(len(split), accuracy, tuple(map(tuple, confusion.tolist())))
