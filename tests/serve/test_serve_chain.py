"""The chain of proof: wherever a link does not hold, nothing is packaged, and what was packaged anyway never serves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from without_server import Tiny, initialized, rewrite

from deploypipe.archives.pack import build_archive
from deploypipe.capture import capture
from deploypipe.contract.run import Run, open_run
from deploypipe.contract.sidecar import sidecar_of
from deploypipe.contract.tasks import IMAGE_CLASSIFICATION
from deploypipe.errors import PackageError
from deploypipe.export import plan, write_proven
from deploypipe.files import sha256_file
from deploypipe.formats.session import METADATA, SEAL
from deploypipe.package import package as package_run
from deploypipe.parity.probes import image_probes
from deploypipe.serve.service.served_model import ArchiveInvalid


@pytest.fixture(scope="module")
def another(images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proven artifact of another run: the same network, other weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("another") / "tiny.onnx"
    captured = capture(Tiny().eval(), (images[:2],), {"pixels": {0: "batch"}}, ("logits",))
    prepared = plan(captured, image_probes(images), {"weights_sha256": "b" * 64}, IMAGE_CLASSIFICATION)
    write_proven(prepared, "onnx", path)[1].raise_if_failed()
    return path


@pytest.fixture
def mine(artifacts: dict[str, Path], tmp_path: Path) -> Path:
    """A proven artifact and its sidecar, to spoil."""
    return _copy(artifacts["onnx"], tmp_path / "mine")


def _copy(path: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(sidecar_of(path), folder)
    return Path(shutil.copy(path, folder))


def _edit_sidecar(path: Path, **changes: Any) -> None:
    document = json.loads(sidecar_of(path).read_text())
    for section, value in changes.items():
        document[section] = {**document[section], **value} if isinstance(value, dict) and value else value
    sidecar_of(path).write_text(json.dumps(document))


def _edit_inside(path: Path, entry: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what the artifact says of itself, and give its sidecar the new file's sha256."""
    proto = onnx.load_model(str(path))
    properties = {prop.key: prop.value for prop in proto.metadata_props}
    document = json.loads(properties.pop(entry))
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, properties)
    if change(document) is not None:
        proto.metadata_props.add(key=entry, value=json.dumps(document))
    onnx.save_model(proto, str(path))
    _edit_sidecar(path, sha256=sha256_file(path))


def _says(**facts: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document.update(facts) or document


def _without_seal(path: Path) -> None:
    _edit_inside(path, SEAL, lambda document: None)


def _own_weights(document: dict[str, Any]) -> Any:
    document["provenance"]["weights_sha256"] = "b" * 64
    return document


def _own_output_shape(document: dict[str, Any]) -> Any:
    document["signature"]["outputs"][0]["shape"] = ["batch", 11]
    return document


def _sidecar_of_another(path: Path, another: Path) -> None:
    shutil.copy(sidecar_of(another), sidecar_of(path))


def _sidecar_of_another_edited(path: Path, another: Path) -> None:
    _sidecar_of_another(path, another)
    _edit_sidecar(path, sha256=sha256_file(path))


def _replaced(path: Path, another: Path) -> None:
    shutil.copy(another, path)


def _replaced_and_sidecar_edited(path: Path, another: Path) -> None:
    shutil.copy(another, path)
    _edit_sidecar(path, sha256=sha256_file(path))


def _replaced_and_parity_copied(path: Path, another: Path) -> None:
    parity = json.loads(sidecar_of(another).read_text())["parity"]
    shutil.copy(another, path)
    _edit_sidecar(path, sha256=sha256_file(path), parity=parity)


BYTES = {
    "bytes changed": (lambda path, another: path.write_bytes(path.read_bytes() + b"\0"), "its sha256 differs"),
    "replaced by another run's": (_replaced, "its sha256 differs"),
    "another run's sidecar": (_sidecar_of_another, "its sha256 differs"),
}
"""The artifact is not the file that its sidecar describes."""
LINKS: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "no verdict in the sidecar": (lambda path, _: _edit_sidecar(path, parity={}), "its sidecar has no parity verdict"),
    "failed, says the sidecar": (
        lambda path, _: _edit_sidecar(path, parity={"verdict": "failed"}), "verdict in its sidecar is 'failed'"),
    "no seal": (lambda path, _: _without_seal(path), "its own seal has no parity verdict"),
    "failed, says the seal": (
        lambda path, _: _edit_inside(path, SEAL, _says(verdict="failed")), "verdict in its own seal is 'failed'"),
    "a seal of nothing": (lambda path, _: _edit_inside(path, SEAL, _says(sha256="")), "seal is for another proof"),
    "another proof, says the seal": (
        lambda path, _: _edit_inside(path, SEAL, _says(sha256="0" * 64)), "seal is for another proof"),
    "the sidecar's proof edited": (
        lambda path, _: _edit_sidecar(path, parity={"max_difference": 0.0, "comparisons": 10**6}),
        "seal is for another proof"),
    "replaced, and sha256 edited": (_replaced_and_sidecar_edited, "seal is for another proof"),
    "replaced, sha256 and proof edited": (_replaced_and_parity_copied, "other weights"),
    "another run's sidecar with this sha256": (_sidecar_of_another_edited, "seal is for another proof"),
    "other weights, says the sidecar": (
        lambda path, _: _edit_sidecar(path, provenance={"weights_sha256": "b" * 64}), "other weights"),
    "other weights, says the artifact": (lambda path, _: _edit_inside(path, METADATA, _own_weights), "other weights"),
    "another signature": (lambda path, _: _edit_inside(path, METADATA, _own_output_shape), "its own signature"),
}  # fmt: skip
"""The artifact's bytes are those of its sidecar, and something else does not hold."""


@pytest.mark.parametrize("link", [*BYTES, *LINKS])
def test_package_refuses_a_broken_link(mine: Path, another: Path, tmp_path: Path, link: str) -> None:
    spoil, says = (BYTES | LINKS)[link]
    assert build_archive(mine, "digits", store=tmp_path / "before")
    spoil(mine, another)
    with pytest.raises(PackageError, match=says) as caught:
        build_archive(mine, "digits", store=tmp_path / "store")
    assert "\n" not in str(caught.value) and str(mine) in str(caught.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("link", [*BYTES, *LINKS])
def test_a_handler_refuses_a_broken_link_at_load(mine: Path, another: Path, tmp_path: Path, link: str) -> None:
    """An archive that was put together past `package`: each of its files has the digest that its manifest says."""
    spoil, says = (BYTES | LINKS)[link]
    archive = build_archive(mine, "digits", store=tmp_path)
    spoil(mine, another)
    rewrite(archive.path, {path.name: path.read_bytes() for path in (mine, sidecar_of(mine))})
    with pytest.raises(ArchiveInvalid, match=says):
        initialized(archive.path, tmp_path / "model")


def _one_weight_nudged(run: Run, another: Path) -> None:
    """By a thousandth, in the file; its sidecar names the new bytes, and all else still holds."""
    path = run.exports / "model.onnx"
    proto = onnx.load_model(str(path))
    weights = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[5] *= 1.001
    weights.raw_data = values.tobytes()
    onnx.save_model(proto, str(path))
    _edit_sidecar(path, sha256=sha256_file(path))


def _artifact_of_another_run(run: Run, another: Path) -> None:
    path = run.exports / "model.onnx"
    shutil.copy(another, path)
    shutil.copy(sidecar_of(another), sidecar_of(path))


def _weights_retrained(run: Run, another: Path) -> None:
    path = run.folder / "weights.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(path).items()}
    save_file(tensors, path)


@pytest.mark.parametrize("named_by", ["--run", "--artifact"])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_artifact_of_another_run, "not written from this run's weights"),
        (_one_weight_nudged, "is not this run's model: weights: "),
        (_weights_retrained, "is not what this run trained"),
    ],
    ids=["artifact of another run", "one weight nudged in the file", "the run's weights replaced"],
)
def test_an_artifact_with_other_weights_than_its_run_is_not_packaged(
    digits_run: Run,
    another: Path,
    tmp_path: Path,
    spoil: Callable[[Run, Path], None],
    says: str,
    named_by: str,
) -> None:
    run = open_run(Path(shutil.copytree(digits_run.folder, tmp_path / "run")))
    which = (None, run.folder) if named_by == "--run" else (run.exports / "model.onnx", None)
    assert package_run(*which, None, "1.0", tmp_path / "before")
    spoil(run, another)
    with pytest.raises(PackageError, match=says) as caught:
        package_run(*which, None, "1.0", tmp_path / "store")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()
