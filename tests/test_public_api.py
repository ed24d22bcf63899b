import inspect
from pathlib import Path

import deploypipe
from deploypipe import errors
from deploypipe.formats import FORMATS

CODES = {
    "DeploypipeError": 1, "UsageError": 2, "DataError": 3, "TrainingError": 4, "ExportError": 5, "ParityError": 6,
    "PackageError": 7, "ServingError": 8, "Interrupted": 130,
}  # fmt: skip


def test_what_is_exported_is_there_and_documented() -> None:
    for name in deploypipe.__all__:
        assert inspect.getdoc(getattr(deploypipe, name)), f"{name} has no docstring"
    assert callable(deploypipe.export) and callable(deploypipe.load) and callable(deploypipe.verify)


def test_each_error_has_its_exit_code_and_stands_in_the_drawn_tree() -> None:
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.DeploypipeError)
    }
    assert found == CODES
    assert errors.__doc__ is not None
    for name, code in CODES.items():
        assert any(name in line and f" {code} " in line for line in errors.__doc__.splitlines())


def test_formats_have_names_and_suffixes_of_their_own() -> None:
    assert set(FORMATS) == {"onnx", "pt2", "torchscript"}
    assert len({entry.suffix for entry in FORMATS.values()}) == len(FORMATS)
    folder = Path(inspect.getfile(deploypipe)).parent / "formats"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "base"} == set(FORMATS)


def test_an_error_is_a_message_and_a_remedy() -> None:
    error = errors.DataError("x.bin is damaged", "Delete it.")
    assert (error.message, error.remedy, str(error)) == (
        "x.bin is damaged",
        "Delete it.",
        "x.bin is damaged. Delete it.",
    )
    assert errors.first_line(ValueError("one\ntwo")) == "one" and errors.first_line(KeyError()) == "KeyError"
