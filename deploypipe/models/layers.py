"""The layers of a network of the zoo, in words."""

import torchinfo

from deploypipe.models.zoo import entry_of


def layers_of(name: str) -> str:
    """The layer summary of a network, by torchinfo. UsageError where there is no network of this name."""
    entry = entry_of(name)
    example = list(entry.example())
    dtypes = [tensor.dtype for tensor in example]
    return str(torchinfo.summary(entry.build(), input_data=example, verbose=0, dtypes=dtypes))
