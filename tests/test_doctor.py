import errno
import sys
from pathlib import Path

import pytest

from deploypipe import doctor


def test_the_doctor_tries_what_run_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checks = {check.name: check for check in doctor.examine()}
    assert checks["folder"].ok and checks["onnxscript"].ok
    assert "CPUExecutionProvider" in checks["ONNX Runtime providers"].found

    def read_only(**options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    # A user who may write everywhere has no folder that is read-only.
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    checks = {check.name: check for check in doctor.examine()}
    assert not checks["folder"].ok and "cannot write" in checks["folder"].found
    assert not checks["onnxscript"].ok and checks["folder"].need == doctor.NEEDED
