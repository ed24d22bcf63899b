"""The corpus through the compiler: every case in every format, every probe against eager; and the refusals."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from carrying import FORMATS, Carried
from comparing import difference
from corpus import CASES, FIRST_TWELVE, MAY_BE_REFUSED, Case
from corpus.refusals import REFUSALS, Refusal

import deploypipe
from deploypipe.errors import ExportError
from deploypipe.formats import FORMATS as FORMATS_BY_NAME

REST = [name for name in CASES if name not in FIRST_TWELVE]


def examine(case: Case) -> None:
    """Collects what each format does before it fails, so that one run tells the whole of a case."""
    module, reference = case.build(), case.reference()
    before = copy.deepcopy(module.state_dict())
    training = {name: m.training for name, m in module.named_modules()}
    problems: list[str] = []
    refused: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        carried = Carried(module, case.example, case.dynamic, case.probes)
        for fmt in FORMATS:
            try:
                runner = carried.runner(fmt)
            except ExportError as error:
                refused.append(f"{fmt}: {error}")
                continue
            for number, inputs in enumerate(case.probes):
                with torch.no_grad():
                    expected, actual = reference(*inputs), runner(*inputs)
                problem = difference(expected, actual)
                if problem:
                    problems.append(f"{fmt}, probe {number}: {problem}")
    assert not problems, "\n".join(problems)
    if refused:
        raise ExportError("\n".join(refused))
    assert training == {name: m.training for name, m in module.named_modules()}, "the caller's mode changed"
    assert difference(before, dict(module.state_dict())) is None, "the caller's weights changed"


def examine_or_excuse(case: Case) -> None:
    try:
        examine(case)
    except ExportError as error:
        if case.name not in MAY_BE_REFUSED:
            raise
        pytest.xfail(f"{MAY_BE_REFUSED[case.name]}: {error}")


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", FIRST_TWELVE)
def test_the_twelve_forms(name: str, tmp_path: Path) -> None:
    """Through the library, as a user would: export, load, compare."""
    case = CASES[name]
    for fmt, entry in FORMATS_BY_NAME.items():
        path = tmp_path / f"model{entry.suffix}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of ways that the case's probes do not go
            artifact = deploypipe.export(
                case.build(), case.example, format=fmt, path=path, dynamic=case.dynamic, probes=case.probes
            )
        runner = deploypipe.load(artifact.path)
        for inputs in case.probes:
            with torch.no_grad():
                expected = case.reference()(*copy.deepcopy(inputs))
            assert difference(expected, runner(*inputs)) is None


@pytest.mark.nightly
@pytest.mark.parametrize("name", REST)
def test_the_rest_of_the_corpus(name: str) -> None:
    examine_or_excuse(CASES[name])


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_with_construct_and_line(refused: Refusal) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ExportError) as caught:
            carried = Carried(refused.build(), refused.example, refused.dynamic, refused.probes)
            for fmt in FORMATS:
                carried.runner(fmt)
    message = str(caught.value)
    assert any(word.lower() in message.lower() for word in refused.says), message
    if refused.lines:
        assert any(f"refusals.py:{line}:" in message for line in refused.lines), f"{refused.lines}: {message}"
