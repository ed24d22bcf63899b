"""int8: what `quantize` writes, what it refuses, and that gate and archive hold it to the task."""

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

from deploypipe import quantize as quantizing
from deploypipe.archives.pack import build_archive
from deploypipe.capture import capture
from deploypipe.cli import app
from deploypipe.contract.archive import Archive
from deploypipe.contract.records import from_document, to_document
from deploypipe.contract.run import Run, open_run
from deploypipe.data import dataset_of
from deploypipe.errors import DeploypipeError, PackageError, ParityError, UsageError
from deploypipe.evaluate import evaluate
from deploypipe.export import plan_run, write_proven
from deploypipe.formats.reading import read_artifact, read_runner, read_session
from deploypipe.formats.session import METADATA
from deploypipe.models import entry_of
from deploypipe.models.trained import load_trained
from deploypipe.package import package as package_run
from deploypipe.parity.reference import Reference
from deploypipe.parity.tolerances import parse_overrides
from deploypipe.quantize import TARGET, quantize
from deploypipe.train import TrainConfig, train
from deploypipe.verify import Subjects, Terms, verify, verify_run


@pytest.fixture(scope="module")
def run(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The digits run with an int8 artifact; a copy, for others count its artifacts."""
    folder = tmp_path_factory.mktemp("int8") / "run"
    shutil.copytree(digits_run.folder, folder)
    copy = open_run(folder)
    _, report = quantize(copy)
    report.raise_if_failed()
    return copy


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """To be spoilt."""
    shutil.copytree(run.folder, tmp_path / "run")
    return open_run(tmp_path / "run")


@pytest.fixture(scope="module")
def archive(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return build_archive(run.exports / TARGET, "digits", store=tmp_path_factory.mktemp("store"), trained=run)


def test_it_is_int8_inside_and_says_so(run: Run) -> None:
    artifact = read_artifact(run.exports / TARGET)
    assert artifact.precision == artifact.parity["precision"] == read_runner(artifact.path).precision == "int8"
    assert artifact.provenance["rounded_from"] == read_artifact(run.exports / "model.onnx").sha256
    assert artifact.provenance["weights_sha256"] == run.document["weights_sha256"]
    assert artifact.parity["accuracy"].startswith("int8 ")
    graph = onnx.load(str(artifact.path)).graph
    rounded = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims]
    weights = [weight for weight in load_trained(run).parameters() if weight.dim() > 1]
    # The last product stays float.
    assert sorted(max(np.prod(t.dims), 1) for t in rounded if len(t.dims) > 1) == sorted(
        weight.numel() for weight in weights[:-1]
    )
    assert artifact.path.stat().st_size < 0.5 * (run.exports / "model.onnx").stat().st_size


def test_it_is_as_accurate_and_not_equal(run: Run) -> None:
    dataset = dataset_of(run)
    assert dataset is not None
    eager, rounded = load_trained(run), read_runner(run.exports / TARGET)
    accuracy = [evaluate(model, dataset.test).accuracy for model in (eager, rounded)]
    assert accuracy[1] > accuracy[0] - 1.5 / len(dataset.test)
    with torch.no_grad():
        far = (eager(dataset.test.inputs[:64]) - rounded(dataset.test.inputs[:64])).abs().max()
    assert far > 1e-3  # else nothing was rounded


def test_verify_holds_it_to_the_task_and_to_itself(run: Run) -> None:
    (report,) = verify_run(run, Subjects((run.exports / TARGET,))).reports
    assert report.passed, report.reason
    checks = {finding.check for finding in report.findings}
    families = {outcome.family for outcome in report.outcomes}
    assert {"accuracy", "rows", "classes", "provenance"} <= checks
    (weights,) = (finding.detail for finding in report.findings if finding.check == "weights")
    assert "within half a step" in weights
    assert {"optimisation off", "1 thread", "fresh process", "same call again"} <= families
    assert all(o.atol < 10 for o in report.outcomes if o.family in ("optimisation off", "fresh process"))


def test_with_a_tolerance_its_values_count(run: Run) -> None:
    (report,) = verify_run(run, Subjects((run.exports / TARGET,)), terms=Terms(parse_overrides(["1e-4"], []))).reports
    assert not report.passed and "values differ" in report.reason


def test_its_archive_answers_with_its_own_samples(run: Run, archive: Archive) -> None:
    assert (archive.kind, archive.precision) == ("onnx, int8", "int8")
    (own,) = read_session(run.exports / TARGET).run(archive.sample.inputs)
    assert (own == archive.sample.outputs[0]).all()
    ((atol, rtol),) = archive.tolerances
    assert 1e-3 < atol <= 0.05 * float(abs(own).max()) + 1e-9 and rtol == 0
    assert from_document(to_document(archive), Archive) == archive
    (report,) = verify_run(run, Subjects(archive=archive.path)).reports
    assert report.passed and report.claims["precision"] == "int8", report.reason


def _change(path: Path, amount: int) -> None:
    """Other int8 weights in the largest tensor, and a sidecar and seal that know of nothing."""
    model = onnx.load(str(path))
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    largest = max(tensors, key=lambda tensor: np.prod(tensor.dims))
    values = numpy_helper.to_array(largest).copy()
    values[:] = np.roll(values, amount, axis=-1)
    largest.CopyFrom(numpy_helper.from_array(values, largest.name))
    onnx.save(model, str(path))


def test_other_weights_in_it_are_found(copy: Run) -> None:
    path = copy.exports / TARGET
    _change(path, 3)
    path.with_name(f"{TARGET}.json").unlink()  # else its digest would tell first
    (report,) = verify_run(copy, Subjects((path,))).reports
    assert not report.passed
    assert "accuracy: int8" in report.reason and "points lost, 0.28 allowed" in report.reason
    assert "weights: 'fc1.weight'" in report.reason or "neither in the file nor, rounded" in report.reason


def test_one_that_loses_accuracy_is_not_written(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy.exports / TARGET
    before = path.read_bytes()
    monkeypatch.setattr(quantizing, "CALIBRATION", 1)
    dataset = dataset_of(copy)
    assert dataset is not None
    dataset.train.inputs[0].zero_()  # ranges of a black image: everything else is cut off
    for reader in ("deploypipe.quantize", "deploypipe.export"):
        monkeypatch.setattr(importlib.import_module(reader), "dataset_of", lambda run, data_dir=None: dataset)
    _, report = quantize(copy)
    assert not report.passed and "points lost" in report.reason
    assert path.read_bytes() == before
    assert not list(copy.exports.glob("*tmp*"))


def test_without_the_test_set_it_cannot_be_judged(run: Run) -> None:
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    with pytest.raises(UsageError, match="held to its accuracy"):
        verify(load_trained(run), run.exports / TARGET, [(images,)])


def test_a_float_artifact_that_claims_to_be_rounded_is_held_to_its_weights(copy: Run) -> None:
    path = copy.exports / "model.onnx"
    path.with_name("model.onnx.json").unlink()
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 100:
            values = numpy_helper.to_array(tensor) * np.float32(1.02)  # too little for the accuracy to tell
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    facts = {entry.key: entry for entry in model.metadata_props}
    said = json.loads(facts[METADATA].value)
    facts[METADATA].value = json.dumps(said | {"precision": "int8"})
    onnx.save(model, str(path))
    (report,) = verify_run(copy, Subjects((path,))).reports
    assert not report.passed and "neither in the file nor, rounded, within half a step" in report.reason


@pytest.mark.parametrize("name", [TARGET, "model.onnx"])
def test_a_sidecar_cannot_say_another_precision(copy: Run, name: str, tmp_path: Path) -> None:
    sidecar = copy.exports / f"{name}.json"
    document = json.loads(sidecar.read_text())
    precision = document.pop("precision", "")
    sidecar.write_text(json.dumps(document if precision else document | {"precision": "int8"}))
    with pytest.raises(PackageError, match="precision is"):
        build_archive(copy.exports / name, "digits", store=tmp_path / "store")


def test_package_names_it_and_takes_it_only_when_asked(copy: Run, tmp_path: Path) -> None:
    store = tmp_path / "store"
    rounded = package_run(copy.exports / TARGET, store=store)
    assert rounded.name == "simple-cnn-int8"
    assert package_run(folder=copy.folder, store=store).kind == "onnx"
    (copy.exports / "model.onnx").unlink()
    assert package_run(folder=copy.folder, version="2.0", store=store).format != "onnx"


def _of_another_run(run: Run) -> None:
    """An artifact that is proven, of other weights."""
    path = run.exports / "model.onnx"
    module, entry = load_trained(run), entry_of(run.model)
    with torch.no_grad():
        next(module.parameters()).mul_(1.05)
    changed = replace(plan_run(run), captured=capture(module, entry.example(), entry.dynamic, entry.outputs))
    gate = replace(changed.gate, reference=Reference(module))
    provenance = {**changed.provenance, "weights_sha256": "0" * 64}
    write_proven(replace(changed, gate=gate, provenance=provenance), "onnx", path)[1].raise_if_failed()


def _no_onnx(run: Run) -> None:
    (run.exports / "model.onnx").unlink()


def _changed_onnx(run: Run) -> None:
    path = run.exports / "model.onnx"
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("spoil", "error", "code", "says"),
    [
        (_no_onnx, UsageError, 2, "Write it with `deploypipe export`"),
        (_changed_onnx, ParityError, 6, "not the file that was proven"),
        (_of_another_run, ParityError, 6, "written from other weights"),
    ],
    ids=["no ONNX artifact", "a changed ONNX artifact", "another run's ONNX artifact"],
)
def test_what_cannot_be_rounded(
    copy: Run, spoil: Callable[[Run], None], error: type[DeploypipeError], code: int, says: str
) -> None:
    spoil(copy)
    with pytest.raises(error, match=says):
        quantize(copy)
    done = CliRunner().invoke(app, ["quantize", "--run", str(copy.folder)])
    assert done.exit_code == code and says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_without_a_test_set_is_refused(tmp_path: Path) -> None:
    run = train(TrainConfig(model="dynamic-branch", device="cpu"), tmp_path / "run")
    with pytest.raises(UsageError, match="classifies no images"):
        quantize(run)


def test_the_command_says_where_it_is_and_what_is_next(copy: Run) -> None:
    done = CliRunner().invoke(app, ["quantize", "--run", str(copy.folder), "--json"])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["path"].endswith(TARGET) and document["precision"] == "int8"
