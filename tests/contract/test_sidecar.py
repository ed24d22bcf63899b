"""Sidecars, and what is refused before an artifact is served."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploypipe.contract.run import Run
from deploypipe.contract.sidecar import sidecar_of
from deploypipe.errors import PackageError, UsageError
from deploypipe.formats.reading import read_artifact


def damaged(digits_run: Run, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "model.onnx"
    shutil.copyfile(digits_run.exports / "model.onnx", path)
    document = json.loads(sidecar_of(digits_run.exports / "model.onnx").read_text())
    change(document)
    sidecar_of(path).write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("task"), "missing required field `task`"),
        (lambda document: document.update(parity=[]), r"Expected `object`, got `array` - at `\$.parity`"),
        (lambda document: document.update(format="pt2"), "its format, 'pt2', is not that of model.onnx"),
        (lambda document: document.update(task="chess"), "no task 'chess'"),
        (lambda document: document.update(structure={"tuple": [None, None]}), "does not nest"),
        (lambda document: document.update(structure={}), "damaged"),
        (lambda document: document["inputs"][0].pop("dtype"), r"field `dtype` - at `\$.signature.inputs\[0\]`"),
        (lambda document: document.update(samples={}), r"missing required field `inputs` - at `\$.samples`"),
        (lambda document: document["samples"]["inputs"].clear(), "0 sample tensors for 1"),
        (lambda document: document["samples"]["inputs"][0].update(base64="!"), "damaged"),
        (lambda document: document["samples"]["inputs"][0].update(base64="AAAA"), "damaged"),
        (lambda document: document["samples"]["inputs"][0].update(dtype="nn"), "damaged"),
        (lambda document: document["samples"]["inputs"][0].update(dtype="int8"), "its sample of .* is int8"),
        (lambda document: document["samples"]["outputs"][0]["shape"].append(1), "its sample of .* is float32"),
    ],
)  # fmt: skip
def test_damaged_sidecars_are_named(
    digits_run: Run, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = damaged(digits_run, tmp_path, change)
    for error in (UsageError, PackageError):
        with pytest.raises(error, match=f"model.onnx.json is damaged.*{message.replace('damaged', '')}") as caught:
            read_artifact(path, error)
        assert "deploypipe export" in caught.value.remedy


def test_a_whole_sidecar_is_read(digits_run: Run, tmp_path: Path) -> None:
    assert read_artifact(damaged(digits_run, tmp_path, lambda document: None)).format == "onnx"
