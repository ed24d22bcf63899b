"""The gate tests itself: every artifact that is wrong on purpose is rejected, and no honest one is.

Every sixth mutant of a kind, and every honest artifact, is tried here in one format, the formats taking turns;
`make nightly` tries all in each.
"""

import re
from pathlib import Path

import pytest
from mutation import HONEST, KINDS, MUTANTS, Mutant, Subjects

from deploypipe.contract.run import Run
from deploypipe.formats import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore")  # how mutants are made gives warnings


def of_turn(mutant: Mutant, turn: int) -> str:
    """ONNX seldom, where there is a choice: its exporter takes seconds."""
    quick = [format for format in mutant.formats if format != "onnx"]
    return quick[turn % len(quick)] if quick and turn % 6 else mutant.formats[0]


HERE = {mutant.name for mutants in KINDS.values() for mutant in mutants[::6]}
TURNS = [(mutant, of_turn(mutant, turn)) for turn, mutant in enumerate(MUTANTS) if mutant.name in HERE]
REST = [(mutant, format) for mutant in MUTANTS for format in mutant.formats if (mutant, format) not in TURNS]


@pytest.fixture(scope="session")
def subjects(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Subjects:
    return Subjects(digits_run, tmp_path_factory.mktemp("honest"))


def named(pairs: list[tuple[Mutant, str]]) -> list[str]:
    return [f"{mutant.name}-{format}" for mutant, format in pairs]


def check_rejected(subjects: Subjects, mutant: Mutant, format: str, folder: Path) -> None:
    subject, path = subjects[mutant.subject], folder / f"mutant{FORMATS[format].suffix}"
    mutant.make(subject, format, path)
    rejection = mutant.judge(subject, path)
    assert rejection is not None, f"{mutant.name}, as {format}, passes"
    assert re.search(mutant.reason, rejection.reason, re.IGNORECASE)
    # A weight may be off by too little for any value to depart; then its name must do.
    assert re.search(mutant.culprit, rejection.culprit or rejection.reason)


@pytest.mark.sample(10)
@pytest.mark.parametrize(("mutant", "format"), TURNS, ids=named(TURNS))
def test_a_mutant_is_rejected_with_its_reason(subjects: Subjects, mutant: Mutant, format: str, tmp_path: Path) -> None:
    check_rejected(subjects, mutant, format, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize(("mutant", "format"), REST, ids=named(REST))
def test_so_are_all_others(subjects: Subjects, mutant: Mutant, format: str, tmp_path: Path) -> None:
    check_rejected(subjects, mutant, format, tmp_path)


HONEST_TURNS = [
    pytest.param(name, format, marks=[] if (place + turn) % len(FORMATS) == 0 else [pytest.mark.nightly])
    for place, name in enumerate(HONEST)
    for turn, format in enumerate(FORMATS)
]


@pytest.mark.sample(4)
@pytest.mark.parametrize(("name", "format"), HONEST_TURNS)
def test_the_honest_artifact_passes(subjects: Subjects, name: str, format: str) -> None:
    subject = subjects[name]
    rejection = subject.rejection(subject.honest(format))
    assert rejection is None, rejection.reason


def test_every_kind_is_there_in_every_format_and_no_name_twice() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutants for mutants in KINDS.values())
    assert {format for _, format in TURNS} == set(FORMATS)
