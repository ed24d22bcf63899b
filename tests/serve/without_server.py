"""A tiny classifier, and a handler loaded as TorchServe would load it."""

import json
import logging
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from deploypipe.formats import FORMATS
from deploypipe.serve import package
from deploypipe.serve.handler import Handler
from deploypipe.serve.runners import Context


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.linear(pixels.flatten(1) / 255)


def load(artifact: Path, folder: Path) -> tuple[Handler, Context]:
    """Package, unpack and initialize, as TorchServe would."""
    archive = package(artifact, "digits", store=folder)
    with zipfile.ZipFile(archive.path) as file:
        file.extractall(folder / "model")
    manifest = json.loads((folder / "model" / "MAR-INF" / "MANIFEST.json").read_text())
    context = Context(manifest, {"model_dir": str(folder / "model"), "gpu_id": None, "batch_size": 4})
    handler = Handler(FORMATS[archive.format].read)
    # A worker's process is its handler's own; this one is not.
    threads, level = torch.get_num_threads(), logging.getLogger().level
    try:
        handler.initialize(context)
    finally:
        torch.set_num_threads(threads)
        logging.getLogger().setLevel(level)
    return handler, context
