import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from deploypipe.data import data_folder, idx, load_dataset
from deploypipe.data.download import CHECKSUMS, Unavailable
from deploypipe.errors import DataError, UsageError


def test_digits_are_the_same_everywhere() -> None:
    digits = load_dataset("digits")
    assert digits.sha256 == "fe10d0c89898" + digits.sha256[12:]
    assert digits.train.inputs.shape == (1438, 1, 28, 28) and digits.test.inputs.shape == (359, 1, 28, 28)
    assert digits.train.inputs.dtype == torch.uint8 and digits.train.targets.dtype == torch.int64
    assert set(digits.test.targets.tolist()) == set(range(10))
    # White on black, as MNIST: corners are background, and the brightest pixel is white.
    assert digits.train.inputs[:, 0, :3, :3].max() == 0 and digits.train.inputs.max() == 255


def test_line_is_y_equals_2x() -> None:
    line = load_dataset("line")
    assert torch.equal(line.train.targets, 2 * line.train.inputs)


def test_mnist_is_the_real_one(mnist_dir: Path) -> None:
    mnist = load_dataset("mnist", mnist_dir)
    assert mnist.train.inputs.shape == (60000, 1, 28, 28) and mnist.test.inputs.shape == (10000, 1, 28, 28)
    assert mnist.train.targets[:5].tolist() == [5, 0, 4, 1, 9]
    assert load_dataset("auto", mnist_dir).name == "mnist"


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="no dataset 'mnits'.*digits"):
        load_dataset("mnits")


def test_auto_falls_back_to_digits_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(name: str, folder: Path, *more: object) -> None:
        raise Unavailable(name, folder, "no network")

    monkeypatch.setattr(idx, "download", no_network)
    said: list[str] = []
    assert load_dataset("auto", tmp_path, said.append).name == "digits"
    assert len(said) == 1 and "no network" in said[0] and "digits" in said[0]
    with pytest.raises(DataError, match=r"MNIST is not in .*--data digits"):
        load_dataset("mnist", tmp_path)


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port: refused at once
    with pytest.raises(Unavailable):
        load_dataset("mnist", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] in ([], [".MNIST.lock"])


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (http.client.IncompleteRead(b"half", 100), r"IncompleteRead\(4 bytes read"),
        (EOFError("Compressed file ended"), "Compressed file ended"),
        (OSError(), "OSError"),
        (RuntimeError("first\nlast"), "last"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_auto_survives_every_failure_of_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, reason: str
) -> None:
    from torchvision import datasets

    def fail(*args: object, **options: object) -> None:
        raise failure

    monkeypatch.setattr(datasets, "MNIST", fail)
    with pytest.raises(Unavailable, match=f"could not be downloaded: {reason}"):
        load_dataset("mnist", tmp_path)
    assert load_dataset("auto", tmp_path).name == "digits"


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (idx.TRAIN_IMAGES, lambda path: path.write_bytes(path.read_bytes()[:1000]), "is truncated"),
        (idx.TRAIN_IMAGES, lambda path: path.write_bytes(path.read_bytes()[:6]), "is truncated .* 6 bytes"),
        (idx.TRAIN_LABELS, lambda path: path.write_bytes(b""), "is no IDX file .*nothing"),
        (idx.TEST_IMAGES, lambda path: path.write_bytes(b"\x1f\x8b" + path.read_bytes()[2:]), "is no IDX file .*1f8b"),
        (idx.TEST_LABELS, lambda path: path.unlink(), "cannot be read: No such file"),
        (
            idx.TEST_IMAGES,
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"),
            "is corrupt: sha256",
        ),
        (
            idx.TRAIN_LABELS,
            lambda path: path.write_bytes((path.parent / idx.TEST_LABELS).read_bytes()),
            "is mislabelled: it holds t10k-labels",
        ),
    ],
    ids=[
        "truncated",
        "cut in its header",
        "empty",
        "wrong magic",
        "missing",
        "one byte changed",
        "another file's content",
    ],
)
def test_damaged_files_are_named(tmp_path: Path, mnist_dir: Path, file: str, damage: object, message: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in idx.SHAPES:
        shutil.copyfile(mnist_dir / "MNIST" / "raw" / name, raw / name)
    damage(raw / file)  # type: ignore[operator]
    with pytest.raises(DataError, match=f"{file} {message}") as caught:
        load_dataset("mnist", tmp_path)
    assert "download it anew" in caught.value.remedy


def test_files_with_recorded_checksums_are_held_to_them(tmp_path: Path, mnist_dir: Path) -> None:
    """Fashion-MNIST: nobody publishes digests of the unpacked files, so ours, written after the download, count."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in idx.SHAPES:
        shutil.copyfile(mnist_dir / "MNIST" / "raw" / name, raw / name)
    assert load_dataset("fashion-mnist", tmp_path).classes[9] == "Ankle boot"
    (raw / CHECKSUMS).write_text(f"{'0' * 64}  {idx.TEST_LABELS}\n")
    with pytest.raises(DataError, match="is corrupt"):
        load_dataset("fashion-mnist", tmp_path)


def test_the_folder_is_the_given_one_then_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYPIPE_DATA_DIR", "/from/environment")
    assert data_folder(Path("/given")) == Path("/given")
    assert data_folder() == Path("/from/environment")
    monkeypatch.delenv("DEPLOYPIPE_DATA_DIR")
    assert data_folder().name == "data"


class TorchvisionsMnist:
    """Stands in for torchvision's class: it "downloads" the real files from `source`, slowly."""

    source: Path
    downloads: ClassVar[list[str]] = []

    def __init__(self, root: Path, download: bool) -> None:
        self.downloads.append(str(root))
        raw = root / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for name in idx.SHAPES:
            shutil.copyfile(self.source / "MNIST" / "raw" / name, raw / name)
            time.sleep(0.05)


@pytest.fixture
def downloads(mnist_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were downloaded into."""
    from torchvision import datasets

    monkeypatch.setattr(TorchvisionsMnist, "source", mnist_dir, raising=False)
    monkeypatch.setattr(TorchvisionsMnist, "downloads", [])
    monkeypatch.setattr(datasets, "MNIST", TorchvisionsMnist)
    return TorchvisionsMnist.downloads


def test_two_that_need_the_same_data_download_it_once(tmp_path: Path, downloads: list[str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: load_dataset("mnist", tmp_path), range(3)))
    assert len({dataset.sha256 for dataset in found}) == len(downloads) == 1


def test_half_a_download_is_never_taken_for_a_whole_one(
    tmp_path: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed between two renames leaves what the first one moved."""
    renames: list[object] = []

    def killed(old: object, new: object) -> None:
        renames.append(new)
        if len(renames) == 2:
            raise KeyboardInterrupt
        rename(old, new)  # type: ignore[arg-type]

    rename = os.rename
    monkeypatch.setattr(os, "rename", killed)
    with contextlib.suppress(KeyboardInterrupt):
        load_dataset("mnist", tmp_path)
    monkeypatch.undo()
    assert len(load_dataset("mnist", tmp_path).train) == 60000
    assert not list(tmp_path.glob("*download*"))


def test_what_a_killed_download_left_is_removed(tmp_path: Path, downloads: list[str]) -> None:
    abandoned = tmp_path / ".MNIST.download-killed" / "MNIST" / "raw"
    abandoned.mkdir(parents=True)
    (abandoned / idx.TRAIN_IMAGES).write_bytes(b"half")
    assert len(load_dataset("mnist", tmp_path).train) == 60000
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".MNIST.lock") == ["MNIST"]


def test_a_download_of_other_bytes_than_the_published_is_refused(
    tmp_path: Path, downloads: list[str], mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(mnist_dir / "MNIST" / "raw", spoilt / "MNIST" / "raw")
    labels = spoilt / "MNIST" / "raw" / idx.TEST_LABELS
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x01")
    monkeypatch.setattr(TorchvisionsMnist, "source", spoilt)
    with pytest.raises(Unavailable, match=f"{idx.TEST_LABELS} that was downloaded has another sha256"):
        load_dataset("mnist", tmp_path)
    assert not (tmp_path / "MNIST").exists()


def test_the_catalogue_is_read_without_torch() -> None:
    """`datasets` must not wait for it."""
    code = "import sys; sys.modules['torch'] = None; import deploypipe.data"
    subprocess.run([sys.executable, "-c", code], check=True)
