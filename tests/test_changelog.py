"""The changelog's table of what has moved, for people who import deploypipe, names modules that are there."""

import re

from support import PROJECT


def exists(module: str) -> bool:
    path = PROJECT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_what_has_moved_is_where_the_table_says() -> None:
    rows = re.findall(r"^  \| `deploypipe.*\| (.*) \|$", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(deploypipe\.[\w.]+)`", row)]
    # `deploypipe.data.load_dataset` is a function of its package.
    missing = [name for name in named if not exists(name) and not exists(name.rpartition(".")[0])]
    assert len(rows) > 15 and not missing
