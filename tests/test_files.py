import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from deploypipe.archives.pack import build_archive
from deploypipe.contract.run import Run
from deploypipe.errors import DeploypipeError, PackageError, UsageError
from deploypipe.files import Unwritable, atomic_path, make_folder, read_json, scratch_folder, sha256_file, write_json


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


def _atomic(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"x")


def _scratch(path: Path) -> None:
    with scratch_folder(path) as folder:
        (folder / "x").touch()


@pytest.mark.parametrize("write", [_atomic, _scratch, lambda path: write_json(path, {}), make_folder],
                         ids=["atomic_path", "scratch_folder", "write_json", "make_folder"])  # fmt: skip
@pytest.mark.parametrize("place", ["file/a.json", "file/below/a.json"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str, write: Callable[[Path], None]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"cannot write .*{place}: Not a directory") as caught:
        write(tmp_path / place)
    assert caught.value.exit_code == 2 and isinstance(caught.value, OSError)


def test_a_folder_in_the_files_place(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(UsageError, match="cannot write .*a.json: Is a directory"):
        write_json(tmp_path / "a.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_said_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match="cannot write .*a.bin: No space left"), atomic_path(tmp_path / "a.bin"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_errors_about_other_files_pass(tmp_path: Path) -> None:
    for writer in (atomic_path, scratch_folder):
        with pytest.raises(FileNotFoundError) as caught, writer(tmp_path / "a.bin"):
            (tmp_path / "other").read_bytes()
        assert not isinstance(caught.value, DeploypipeError)


def test_a_store_that_cannot_be_written_is_still_a_package_error(digits_run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PackageError, match=r"net-1.0.mar cannot be written: Not a directory$"):
        build_archive(digits_run.exports / "model.onnx", "net", store=tmp_path / "file")
