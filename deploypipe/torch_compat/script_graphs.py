"""The graphs of script modules: how they are read, simplified and run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.jit._fuser import optimized_execution

Graph = Any


def graph_of(module: Any, method: str = "forward") -> Graph:
    """The graph of a script module's method, which is the module's own."""
    return module._c._get_method(method).graph


def inline_calls(graph: Graph) -> None:
    """Replace each call of a submodule by what it does."""
    torch._C._jit_pass_inline(graph)


def simplify(graph: Graph) -> None:
    """Compute what depends on constants alone, and remove what nothing uses."""
    torch._C._jit_pass_constant_propagation(graph)
    torch._C._jit_pass_dce(graph)


def function_from(graph: Graph, name: str) -> Callable[..., Any]:
    """A function that runs a graph; its first argument is the module."""
    function: Callable[..., Any] = torch._C._create_function_from_graph(name, graph)
    return function


def is_tensor(value: Any) -> bool:
    """Whether a value of a graph is a tensor."""
    return isinstance(value.type(), torch._C.TensorType)


def parsed_schema(text: str) -> Any:
    """A node's schema, with its `name` and `arguments`."""
    return torch._C.parse_schema(text)


def as_written() -> AbstractContextManager[None]:
    """Inside, script functions run operator by operator, without fusing any."""
    plain: AbstractContextManager[None] = optimized_execution(False)
    return plain
