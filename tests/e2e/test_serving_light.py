"""Whoever asks a running server needs no torch: a container's probe, a client, a look at what is served."""

from pathlib import Path

import pytest
from served_models import Models
from support import HEAVY, imported_by

from deploypipe.contract.server import Server
from deploypipe.png import png


@pytest.mark.parametrize(
    "argv", [["ready", "--port"], ["status", "--port"], ["predict", "digit.png", "--name", "onnx"]]
)
def test_it_asks_without_torch(server: Server, models: Models, tmp_path: Path, argv: list[str]) -> None:
    (tmp_path / "digit.png").write_bytes(png(models.images[0, 0]))
    servers = tmp_path / ".local" / "state" / "deploypipe" / "servers"
    servers.mkdir(parents=True)
    (servers / str(server.port)).symlink_to(server.folder)
    where = ["--url", server.url] if argv[0] == "predict" else [str(server.port)]
    code, modules = imported_by(tmp_path, *argv, *where)
    assert code == 0 and not HEAVY & modules
