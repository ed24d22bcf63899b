import ast
import inspect
import multiprocessing
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from support import PROJECT, clean_environment

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


def python(code: str, folder: Path) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_none_of_its_rooms(tmp_path: Path) -> None:
    loaded = python("import sys, deploypipe; print(*(name for name in sys.modules))", tmp_path).split()
    assert [name for name in loaded if name.startswith("deploypipe")] == ["deploypipe"]
    assert not {"torch", "numpy"} & set(loaded)


@pytest.fixture(scope="module")
def fresh() -> ForkServerContext:
    """For processes that have torch, which takes seconds to import, and nothing of ours."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    return context


@pytest.mark.parametrize("name", [name for name in deploypipe.__all__ if name[0].islower()])
@pytest.mark.parametrize(
    "first",
    ["found = deploypipe.{name}", "import {home}", "from {home} import {name} as found"],
    ids=["attribute", "module", "from its module"],
)
def test_a_verb_is_its_function_whatever_was_imported_first(name: str, first: str, fresh: ForkServerContext) -> None:
    home = deploypipe._HOMES[name]
    code = (
        f"import deploypipe\n{first.format(name=name, home=home)}\n"
        + f"""
found = deploypipe.{name}
assert type(found).__name__ == "function"
from {home} import {name} as from_its_module
from deploypipe import {name} as from_the_package
assert found is deploypipe.{name} is from_its_module is from_the_package
"""
    )
    forked = fresh.Process(target=exec, args=(code,))
    forked.start()
    forked.join()
    assert forked.exitcode == 0


def test_what_the_type_checker_sees_is_what_is_loaded() -> None:
    (block,) = [
        node
        for node in ast.parse((PROJECT / "deploypipe" / "__init__.py").read_text()).body
        if isinstance(node, ast.If)
    ]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == deploypipe._HOMES and deploypipe.__all__ == sorted(seen)
    assert set(deploypipe.__all__) <= set(dir(deploypipe))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        deploypipe.nothing  # noqa: B018


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
    folders = {path.parent.name for path in (PROJECT / "deploypipe" / "formats").glob("*/read.py")}
    assert folders == set(FORMATS)


def test_an_error_is_a_message_and_a_remedy() -> None:
    error = errors.DataError("x.bin is damaged", "Delete it.")
    assert (error.message, error.remedy, str(error)) == (
        "x.bin is damaged",
        "Delete it.",
        "x.bin is damaged. Delete it.",
    )
    assert errors.first_line(ValueError("one\ntwo")) == "one" and errors.first_line(KeyError()) == "KeyError"
