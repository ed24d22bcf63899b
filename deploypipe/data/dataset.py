"""What a dataset is: two splits of tensors in memory."""

import hashlib
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Split:
    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Dataset:
    name: str
    sha256: str
    """Over every tensor's bytes: what was really used, whatever file it came from."""
    train: Split
    test: Split
    classes: tuple[str, ...]
    """Class names in label order; empty for a regression."""


def digest_of_splits(*splits: Split) -> str:
    """The sha256 over the bytes of every tensor."""
    digest = hashlib.sha256()
    for split in splits:
        for tensor in (split.inputs, split.targets):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
