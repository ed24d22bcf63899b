import http.client
import shutil
from pathlib import Path

import pytest
import torch

from deploypipe import data
from deploypipe.errors import DataError, UsageError


def test_digits_are_the_same_everywhere() -> None:
    digits = data.load("digits")
    assert digits.sha256 == "fe10d0c89898" + digits.sha256[12:]
    assert digits.train.inputs.shape == (1438, 1, 28, 28) and digits.test.inputs.shape == (359, 1, 28, 28)
    assert digits.train.inputs.dtype == torch.uint8 and digits.train.targets.dtype == torch.int64
    assert set(digits.test.targets.tolist()) == set(range(10))
    # White on black, as MNIST: corners are background, and the brightest pixel is white.
    assert digits.train.inputs[:, 0, :3, :3].max() == 0 and digits.train.inputs.max() == 255


def test_line_is_y_equals_2x() -> None:
    line = data.load("line")
    assert torch.equal(line.train.targets, 2 * line.train.inputs)


def test_mnist_is_the_real_one(mnist_dir: Path) -> None:
    mnist = data.load("mnist", mnist_dir)
    assert mnist.train.inputs.shape == (60000, 1, 28, 28) and mnist.test.inputs.shape == (10000, 1, 28, 28)
    assert mnist.train.targets[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.load("auto", mnist_dir).name == "mnist"


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="no dataset 'mnits'.*digits"):
        data.load("mnits")


def test_auto_falls_back_to_digits_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(name: str, folder: Path) -> None:
        raise data.Unavailable(name, folder, "no network")

    monkeypatch.setattr(data, "_download", no_network)
    said: list[str] = []
    assert data.load("auto", tmp_path, said.append).name == "digits"
    assert len(said) == 1 and "no network" in said[0] and "digits" in said[0]
    with pytest.raises(DataError, match=r"MNIST is not in .*--data digits"):
        data.load("mnist", tmp_path)


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port: refused at once
    with pytest.raises(data.Unavailable):
        data.load("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


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
    with pytest.raises(data.Unavailable, match=f"could not be downloaded: {reason}"):
        data.load("mnist", tmp_path)
    assert data.load("auto", tmp_path).name == "digits"


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (data.TRAIN_IMAGES, lambda path: path.write_bytes(path.read_bytes()[:1000]), "is truncated"),
        (data.TRAIN_IMAGES, lambda path: path.write_bytes(path.read_bytes()[:6]), "is truncated .* 6 bytes"),
        (data.TRAIN_LABELS, lambda path: path.write_bytes(b""), "is no IDX file .*nothing"),
        (data.TEST_IMAGES, lambda path: path.write_bytes(b"\x1f\x8b" + path.read_bytes()[2:]), "is no IDX file .*1f8b"),
        (data.TEST_LABELS, lambda path: path.unlink(), "cannot be read: No such file"),
        (
            data.TEST_IMAGES,
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"),
            "is corrupt: sha256",
        ),
        (
            data.TRAIN_LABELS,
            lambda path: path.write_bytes((path.parent / data.TEST_LABELS).read_bytes()),
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
    for name in data.SHAPES:
        shutil.copyfile(mnist_dir / "MNIST" / "raw" / name, raw / name)
    damage(raw / file)  # type: ignore[operator]
    with pytest.raises(DataError, match=f"{file} {message}") as caught:
        data.load("mnist", tmp_path)
    assert "download it anew" in caught.value.remedy


def test_files_with_recorded_checksums_are_held_to_them(tmp_path: Path, mnist_dir: Path) -> None:
    """Fashion-MNIST: nobody publishes digests of the unpacked files, so ours, written after the download, count."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in data.SHAPES:
        shutil.copyfile(mnist_dir / "MNIST" / "raw" / name, raw / name)
    assert data.load("fashion-mnist", tmp_path).classes[9] == "Ankle boot"
    (raw / data.CHECKSUMS).write_text(f"{'0' * 64}  {data.TEST_LABELS}\n")
    with pytest.raises(DataError, match="is corrupt"):
        data.load("fashion-mnist", tmp_path)


def test_the_folder_is_the_given_one_then_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYPIPE_DATA_DIR", "/from/environment")
    assert data.data_folder(Path("/given")) == Path("/given")
    assert data.data_folder() == Path("/from/environment")
    monkeypatch.delenv("DEPLOYPIPE_DATA_DIR")
    assert data.data_folder().name == "data"
