"""What PyTorch's operators do in train mode, read from their arguments; for pt2 and TorchScript alike."""

from collections.abc import Mapping
from typing import Any

from deploypipe.torch_compat.operators import RANDOM


def trains(operator: str, arguments: Mapping[str, Any]) -> bool:
    """Whether `operator` ("dropout") behaves as in training, with these arguments by their names in its schema."""
    if operator in RANDOM:
        return True
    if any(isinstance(arguments.get(name), float) and arguments[name] == 0.0 for name in ("p", "dropout", "dropout_p")):
        return False  # drops nothing
    if isinstance(arguments.get("dropout_p"), float):
        return True  # attention has no flag
    if arguments.get("train", arguments.get("training")) is not True and "with_update" not in operator:
        return False
    # Without running statistics eager normalises by the batch's in eval mode, too.
    return "batch_norm" not in operator or arguments.get("running_mean") is not None
