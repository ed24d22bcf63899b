from pathlib import Path

import pytest

from deploypipe.errors import UsageError
from deploypipe.files import atomic_path, read_json, scratch_folder, sha256_file, write_json


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_changes_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"before")
    with pytest.raises(failure), atomic_path(path) as temporary:
        assert temporary.suffix == ".bin" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise failure
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_scratch_folder_goes_with_all_in_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path / "model.onnx") as folder:
        (folder / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), ("{", "cannot be read"), ("[]", "its schema is 'list'"), ('{"schema": "b/1"}', "'b/1'")],
    ids=["missing", "no JSON", "no object", "another schema"],
)
def test_read_json_says_what_is_wrong(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_json(path, "a/1", UsageError, "Do this.")


def test_json_and_digest(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"schema": "a/1", "x": 1})
    assert read_json(tmp_path / "a.json", "a/1", UsageError, "")["x"] == 1
    (tmp_path / "empty").write_bytes(b"")
    assert sha256_file(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
