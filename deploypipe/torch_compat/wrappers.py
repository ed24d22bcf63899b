"""Modules that only wrap another one: what `torch.compile`, `DataParallel` and `DistributedDataParallel` return; and
script modules, which are wrapped so that they are called as all others are."""

import sys

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from deploypipe.torch_compat.scripted import called_by_name


def unwrapped(module: nn.Module) -> nn.Module:
    """The module as its author wrote it; a script module as one whose `forward` has a signature."""
    # Its import takes seconds, and whoever has compiled a module has paid for it already.
    compiled = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", ())
    while isinstance(module, (DataParallel, DistributedDataParallel, compiled)):
        module = module._orig_mod if isinstance(module, compiled) else module.module
    return called_by_name(module) if isinstance(module, torch.jit.ScriptModule) else module
