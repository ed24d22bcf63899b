"""Each published bug: a wrong file is found by the gate, and our own export is right, or refuses and says why."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from cases import CASES
from support import PROJECT

SAMPLE = {
    "scatter_reduce mean, without self", "attention, a row that sees nothing", "float quotients and remainders",
    "logsigmoid of large values", "weights of another layout", "a batch that is fixed",
}  # fmt: skip
"""Those that every run of the tests looks at."""


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """`benchmarks/parity/published_bugs.py`, which measures what is asserted here."""
    path = PROJECT / "benchmarks" / "parity" / "published_bugs.py"
    spec = importlib.util.spec_from_file_location("published_bugs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "id", [pytest.param(id, marks=[] if id in SAMPLE else pytest.mark.nightly) for id in CASES], ids=str
)
def test_a_published_bug(benchmark: ModuleType, id: str, tmp_path: Path) -> None:
    case = CASES[id]
    row = benchmark.examined(case, tmp_path)
    assert row["ours"] == (benchmark.REFUSED if case.refused else benchmark.RIGHT), row
    assert row["found"] != benchmark.MISSED, row
    if id in SAMPLE:  # which are all wrong in the plain file
        assert row["found"] in (benchmark.DRAWN, benchmark.STATED, benchmark.GIVEN), row


def test_what_is_measured_is_put_into_the_page(benchmark: ModuleType, tmp_path: Path) -> None:
    first, second = benchmark.MARKS
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{first}\nold\n{second}\nafter\n")
    rows = {
        "atan2 of zeros": {"plain": "wrong", "found": "yes", "ours": "right", "refusal": ""},
        "max pool with NaN": {"plain": "wrong", "found": "no", "ours": "refused", "refusal": "it says why"},
        "another slope": {"plain": "wrong", "found": "yes", "ours": "right", "refusal": ""},
    }
    benchmark.write_into(page, f"{benchmark.summary(rows)}\n\n{benchmark.table(rows)}")
    text = page.read_text()
    assert text.startswith(f"before\n\n{first}\n\n3 cases with ") and text.endswith(f"\n\n{second}\nafter\n")
    assert "silently wrong in 2 of 2" in text and "1 more files are spoilt by us" in text
    assert "the gate finds 2 by" in text and "misses 1" in text and "- max pool with NaN: it says why" in text
    assert "| another slope | Louloudakis et al.: hyperparameters | spoilt by us | yes | right |" in text
