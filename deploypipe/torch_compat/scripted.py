"""Script modules, whose Python code is gone: how they are called as other modules are, and torch's converter, which
makes of their TorchScript graph one that `torch.export` can trace."""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.torch_compat.around import share_tree


class Scripted(nn.Module):
    """What does the same as a script module, with the arguments of its `forward` by name. Parameters keep their
    names."""

    inside: Any

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "inside", inside)
        if isinstance(inside, torch.jit.ScriptModule):
            self._modules[""] = inside  # it has no dictionaries of its own that could be shared
        else:
            share_tree(self, inside)

    def get_submodule(self, target: str) -> nn.Module:
        found: nn.Module = functools.reduce(getattr, target.split("."), self.inside) if target else self
        return found

    def train(self, mode: bool = True) -> "Scripted":
        self.training = mode
        if hasattr(self.inside, "training"):  # a frozen one has no modes
            self.inside.train(mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.inside.state_dict(*args, **kwargs)


def called_by_name(script: torch.jit.ScriptModule) -> Scripted:
    """`script` as a module whose `forward` has a signature, and whose class is named as the author's was."""
    method: Any = script.forward

    def forward(self: Scripted, *args: Any, **kwargs: Any) -> Any:
        return self.inside(*args, **kwargs)

    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("self", by_name)]
    for argument in method.schema.arguments[1:]:
        default = argument.default_value if argument.has_default_value() else inspect.Parameter.empty
        parameters.append(inspect.Parameter(argument.name, by_name, default=default))
    vars(forward)["__signature__"] = inspect.Signature(parameters)
    kind: type[Scripted] = type(script.original_name, (Scripted,), {"forward": forward})
    return kind(script)


def traceable(scripted: Scripted, inputs: tuple[Tensor, ...]) -> Scripted:
    """The same computation as a graph of `torch.fx`, with `torch.cond` and loops for TorchScript's own. Whatever the
    converter raises, it raises: there is no list of what it does not know."""
    from torch._export.converter import TS2EPConverter

    class Converter(TS2EPConverter):
        """Torch's own goes on and traces the graph, with axes of its own choice."""

        def retrace_as_exported_program(self, gm: torch.fx.GraphModule, name_to_constant: Any) -> Any:
            raise _Converted(gm)

    try:
        Converter(scripted.inside, inputs).convert()
    except _Converted as converted:
        return type(scripted)(converted.graph_module)
    raise AssertionError("the converter did not call what it is known to call")


class _Converted(Exception):
    def __init__(self, graph_module: torch.fx.GraphModule) -> None:
        super().__init__()
        self.graph_module = graph_module
