"""A tiny classifier, and TorchServe's side of a handler."""

import json
import logging
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.formats import FORMATS
from deploypipe.serve import package
from deploypipe.serve.handler import Handler


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.linear(pixels.flatten(1) / 255)


@dataclass
class Context:
    """What TorchServe's context offers a handler, and what the handler did with it."""

    manifest: dict[str, Any]
    system_properties: dict[str, Any]
    statuses: dict[int, int] = field(default_factory=dict)
    content_types: dict[int, str] = field(default_factory=dict)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        assert phrase.isascii()
        self.statuses[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.content_types[idx] = value


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
