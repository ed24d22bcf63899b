"""What TorchServe's front end starts as a worker: TorchServe's own program, without torch until something asks for it.

TorchServe's worker imports torch in one place (`ts/protocol/otf_message_handler.py`), for answers that are tensors;
ours are bytes. Loading it takes more than a second and several hundred megabytes, so here that import gets a module
that is loaded when one of its attributes is first asked for: by the readers of TorchScript and pt2 artifacts at once,
by an ONNX model's worker never.

This file is copied into each server's own folder, to where the front end looks for its worker's program, and runs as it
lies there: it imports nothing of deploypipe.
"""

import importlib.util
import runpy
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


class Deferred(MetaPathFinder):
    """The first import of the module `name` gives one that is loaded when it is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def main() -> None:
    here = str(Path(__file__).resolve().parent)  # it is called `ts`, as TorchServe's package is, and holds nothing else
    sys.path[:] = [folder for folder in sys.path if folder != here]
    sys.meta_path.insert(0, Deferred("torch"))
    torchserve = importlib.util.find_spec("ts")
    if torchserve is None or torchserve.origin is None:
        raise SystemExit("torchserve is not installed")
    runpy.run_path(str(Path(torchserve.origin).with_name("model_service_worker.py")), run_name="__main__")


if __name__ == "__main__":
    main()
