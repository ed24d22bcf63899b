"""Writing a captured program as ONNX: the exporter of torch, with the lowerings of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from deploypipe.formats.onnx.lowerings import TRANSLATIONS
from deploypipe.staging.trace import StaticProgram
from deploypipe.torch_compat.onnx_exporter import no_symbols_left_pending, translations_read_once
from deploypipe.torch_compat.recurrent import sequences_stay_open


def to_onnx(
    capture: StaticProgram, path: str | Path | None = None, opset_version: int = 20, **options: Any
) -> torch.onnx.ONNXProgram:
    """Export a captured program. `options` go to `torch.onnx.export`."""
    settings: dict[str, Any] = {"external_data": False, "verbose": False, **options}
    with torch.no_grad(), no_symbols_left_pending(), translations_read_once(), sequences_stay_open():
        made = torch.onnx.export(
            capture.program,
            dynamo=True,
            opset_version=opset_version,
            custom_translation_table=TRANSLATIONS,
            **settings,
        )
    assert made is not None
    if path is not None:
        made.save(str(path), external_data=settings["external_data"])
    return made
