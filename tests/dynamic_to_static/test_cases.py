"""The shared dynamic models, in every format."""

import importlib.util
import sys
from pathlib import Path

import pytest
from carry import FORMATS, check

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "dynamic_models" / "cases.py"


def load():
    if not CASES.exists():
        return {}
    spec = importlib.util.spec_from_file_location("shared_dynamic_cases", CASES)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.CASES


SHARED = load()


@pytest.mark.skipif(not SHARED, reason=f"the shared cases are not beside the repository ({CASES})")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", sorted(SHARED) or ["none"])
def test_shared_case(name, form):
    case = SHARED[name]
    check(case.build(), case.example, case.probes, case.dynamic, form)
