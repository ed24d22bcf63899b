"""Archives: the same bytes from the same inputs, their own code inside, and nothing unproven or tampered with."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from spoilt_archives import SPOILT

from deploypipe.archives.pack import build_archive
from deploypipe.contract.archive import read_archive
from deploypipe.contract.sidecar import sidecar_of
from deploypipe.errors import PackageError
from deploypipe.files import read_json
from deploypipe.formats import FORMATS


@pytest.fixture
def copied(artifacts: dict[str, Path], tmp_path: Path) -> Path:
    """An artifact and sidecar that a test may spoil."""
    path = tmp_path / artifacts["torchscript"].name
    path.write_bytes(artifacts["torchscript"].read_bytes())
    sidecar_of(path).write_bytes(sidecar_of(artifacts["torchscript"]).read_bytes())
    return path


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", FORMATS)
def test_identical_inputs_give_identical_bytes(
    artifacts: dict[str, Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_archive(artifacts[name], "digits", "2.0", tmp_path / "a")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (artifacts[name], sidecar_of(artifacts[name])):
        (elsewhere / path.name).write_bytes(path.read_bytes())
        os.utime(elsewhere / path.name, (1e9, 1e9))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.chdir(elsewhere)
    second = build_archive(Path(artifacts[name].name), "digits", "2.0", tmp_path / "b")
    assert first.path.name == second.path.name == "digits-2.0.mar"
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == second.sha256
    assert read_archive(first.path) == first
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["digits-2.0.mar"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", FORMATS)
def test_an_archive_proves_itself_without_deploypipe(artifacts: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Unpacked, its handler loads and answers its sample where `import deploypipe` fails."""
    archive = build_archive(artifacts[name], "digits", store=tmp_path)
    with zipfile.ZipFile(archive.path) as file:
        file.extractall(tmp_path / "unpacked")
    code = (
        "import sys, json; sys.modules['deploypipe'] = None; sys.path.insert(0, '.')\n"
        "from types import SimpleNamespace; from ts.model_loader import TsModelLoader\n"
        "import handler; manifest = json.load(open('MAR-INF/MANIFEST.json'))\n"
        "service = TsModelLoader().load('digits', '.', 'handler.py', None, 8, None, True, None)\n"
        "assert service.context.manifest == manifest; print('loaded')\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path / "unpacked", capture_output=True, text=True, check=False
    )
    assert done.stdout == "loaded\n", done.stderr


def _no_sample(path: Path) -> None:
    document = json.loads(sidecar_of(path).read_text())
    sidecar_of(path).write_text(json.dumps({**document, "samples": None}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "no artifact at"),
        (lambda path: sidecar_of(path).unlink(), "does not exist"),
        (lambda path: sidecar_of(path).write_text("{"), "cannot be read"),
        (_no_sample, "no sample"),
    ],
    ids=["no artifact", "no sidecar", "sidecar damaged", "no sample"],
)
def test_what_is_not_proven_is_refused(copied: Path, tmp_path: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(copied)
    with pytest.raises(PackageError, match=says):
        build_archive(copied, "digits", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("", "1.0"),
        ("a b", "1.0"),
        ("-a", "1.0"),
        ("a/b", "1.0"),
        ("a..b", "1.0"),
        ("a", ""),
        ("a", "1,0"),
        ("a", "1-0"),
    ],
)
def test_names_that_torchserve_does_not_take_are_refused(copied: Path, tmp_path: Path, name: str, version: str) -> None:
    with pytest.raises(PackageError, match="that TorchServe takes"):
        build_archive(copied, name, version, tmp_path)


def test_a_store_that_cannot_be_written_is_one_line(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, no folder")
    with pytest.raises(PackageError, match="cannot be written"):
        build_archive(copied, "digits", store=tmp_path / "store")


@pytest.mark.parametrize(("spoil", "says"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_archive_is_one_clear_line(
    artifacts: dict[str, Path], tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    path = build_archive(artifacts["torchscript"], "digits", store=tmp_path).path
    spoil(path)
    with pytest.raises(PackageError, match=says) as caught:
        read_archive(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_sidecar_in_the_archive_is_the_artifacts(artifacts: dict[str, Path], tmp_path: Path) -> None:
    archive = build_archive(artifacts["onnx"], "digits", store=tmp_path)
    with zipfile.ZipFile(archive.path) as file:
        file.extract("tiny.onnx.json", tmp_path)
    document = read_json(tmp_path / "tiny.onnx.json", "deploypipe.artifact/1", PackageError, "")
    assert document["parity"]["verdict"] == "passed"
    assert (archive.format, archive.task) == ("onnx", "image-classification")
