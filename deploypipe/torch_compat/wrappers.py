"""Modules that only wrap another one: what `torch.compile`, `DataParallel` and `DistributedDataParallel` return."""

import sys

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrapped(module: nn.Module) -> nn.Module:
    """The module as its author wrote it."""
    # Its import takes seconds, and whoever has compiled a module has paid for it already.
    compiled = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", ())
    while isinstance(module, (DataParallel, DistributedDataParallel, compiled)):
        module = module._orig_mod if isinstance(module, compiled) else module.module
    return module
