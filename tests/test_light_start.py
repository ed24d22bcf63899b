"""What only looks, asks or explains starts without torch and what else is heavy: each command in a fresh process."""

from pathlib import Path

import pytest
from support import HEAVY, imported_by


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["models", "--help"], 0),
        (["train", "--help"], 0),
        (["serve", "--help"], 0),
        (["nonsense"], 2),
        (["status", "--port", "1"], 8),
        (["ready", "--port", "1"], 8),
        (["stop", "--port", "1"], 8),
        (["deploy", "cnn-1.0.mar", "--port", "1"], 8),
        (["predict", "digit.png", "--name", "cnn", "--url", "http://127.0.0.1:1"], 8),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_it_starts_light(tmp_path: Path, argv: list[str], code: int) -> None:
    (tmp_path / "digit.png").write_bytes(b"")
    found, modules = imported_by(tmp_path, *argv)
    assert found == code and not HEAVY & modules
