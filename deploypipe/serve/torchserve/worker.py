"""What TorchServe's front end starts as a worker: TorchServe's own program, without torch until something asks for it.

TorchServe's worker imports torch in one place (`ts/protocol/otf_message_handler.py`), for answers that are tensors;
ours are bytes. Loading it takes more than a second and several hundred megabytes, so that one import gets a stand-in,
which loads torch when one of its attributes is first asked for. Everyone else imports torch as ever: the readers of
TorchScript and pt2 artifacts at once, an ONNX model's worker never. (`importlib.util.LazyLoader` is not used: in
Python 3.12 it starts the loading again for each name that torch asks of itself while it is loaded.)

This file is copied into each server's own folder, to where the front end looks for its worker's program, and runs as it
lies there: it imports nothing of deploypipe.
"""

import importlib
import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

MESSAGES = "ts.protocol.otf_message_handler"


class StandIn(ModuleType):
    """It looks like the module of its name, and imports that when one of its attributes is first asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def main() -> None:
    here = str(Path(__file__).resolve().parent)  # it is called `ts`, as TorchServe's package is, and holds nothing else
    sys.path[:] = [folder for folder in sys.path if folder != here]
    torchserve = importlib.util.find_spec("ts")
    if torchserve is None or torchserve.origin is None:
        raise SystemExit("torchserve is not installed")
    sys.modules["torch"] = StandIn("torch")
    importlib.import_module(MESSAGES)
    del sys.modules["torch"]
    runpy.run_path(str(Path(torchserve.origin).with_name("model_service_worker.py")), run_name="__main__")


if __name__ == "__main__":
    main()
