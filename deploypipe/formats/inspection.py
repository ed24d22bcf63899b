"""What is in an artifact's file: its weights, its operators, what it declares, and every value on the way.

Only the parity gate needs it, so it does not travel inside archives. Each format's `inspect.py` takes the bytes as they
are, with or without deploypipe's own description in them.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath

from torch import Tensor

from deploypipe.contract.signature import TensorSpec


@dataclass(frozen=True)
class Node:
    """One operator of a saved graph."""

    name: str
    """Unique in the file."""
    operator: str
    """As the format calls it: "Conv", "aten.conv2d.default", "aten::conv2d"."""
    inputs: tuple[str, ...]
    """Names of values: the graph's inputs, constants, outputs of other nodes."""
    outputs: tuple[str, ...]
    module: str = ""
    """The path of the author's submodule, "network.0"; empty for the root, and where the file does not know it."""
    source: str = ""
    """The author's line, "net.py:12", where the file knows it."""
    training: bool = False
    """A dropout, a normalisation or a random number that behaves as in training."""


class Inspection(ABC):
    """One artifact, opened. Constants are no nodes; one that has an input's name is called `self.<name>` here."""

    inputs: tuple[TensorSpec, ...]
    """As the graph itself declares them, symbols for symbolic axes; () where it declares nothing."""
    outputs: tuple[TensorSpec, ...]
    returned: tuple[str, ...]
    """The names of the values that it returns; of one tuple, list or dict, where the graph packs them."""
    constants: Mapping[str, Tensor]
    """Every weight, initializer and constant tensor held by the file, those of branches and loops too, by its name
    there."""
    nodes: tuple[Node, ...]
    """The top-level graph, in order of execution."""
    bodies: tuple[Node, ...]
    """The nodes inside branches and loops."""
    devices: frozenset[str]
    """Devices that the graph or its constants name: "cpu", "cuda:0"."""
    external: tuple[str, ...]
    """Other files that it needs."""

    @abstractmethod
    def values(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The inputs and every tensor and number that a top-level node gives for them, by name, on the CPU. A number
        is a 0-d tensor; what nodes change in place afterwards is here as it was. Raises what the runtime raises."""


class Names:
    """Gives each thing a name that nothing before it has."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def fresh(self, wanted: str, prefix: str = "") -> str:
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{prefix}{wanted}" if prefix and number == 1 else f"{wanted}_{number}"
        self._taken.add(name)
        return name


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_LIBRARY = re.compile(
    r"[/\\](site|dist)-packages[/\\](?!deploypipe[/\\]models)|deploypipe[/\\](compiler|staging)[/\\]|^<"
)


def author_line(trace: str) -> str:
    """ "net.py:12" for the innermost frame of a stack trace that is neither a library's nor the compiler's; the folder
    is that of whoever exported. "" where there is none."""
    frames = [frame for frame in _FRAME.findall(trace) if not _LIBRARY.search(frame[0])]
    if not frames:
        return ""
    file, line = frames[-1]
    return f"{PureWindowsPath(file).name}:{line}"  # which splits at either kind of slash
