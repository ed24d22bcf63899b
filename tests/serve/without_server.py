"""A tiny classifier, and a handler loaded as TorchServe would load it."""

import hashlib
import json
import zipfile
from pathlib import Path

from torch import Tensor, nn

from deploypipe.archives.pack import build_archive
from deploypipe.contract.archive import MANIFEST
from deploypipe.formats import format_of
from deploypipe.serve.sessions import Context, worker_settings
from deploypipe.serve.torchserve.handler import Handler


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.linear(pixels.flatten(1) / 255)


def load(artifact: Path, folder: Path) -> tuple[Handler, Context]:
    """Package, unpack and initialize, as TorchServe would."""
    return initialized(build_archive(artifact, "digits", store=folder).path, folder / "model")


def initialized(archive: Path, folder: Path) -> tuple[Handler, Context]:
    """This installation's handler on an archive unpacked into `folder`."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    context = Context(manifest, {"model_dir": str(folder), "gpu_id": None, "batch_size": 4})
    handler = Handler(format_of(folder / manifest["deploypipe"]["artifact"]).read)
    with worker_settings():
        handler.initialize(context)
    return handler, context


def rewrite(path: Path, changed: dict[str, bytes]) -> None:
    """Other files in an archive, with the digests that its manifest must have for them."""
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()} | changed
    manifest = json.loads(entries[MANIFEST])
    manifest["deploypipe"]["sha256"] |= {name: hashlib.sha256(content).hexdigest() for name, content in changed.items()}
    entries[MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
