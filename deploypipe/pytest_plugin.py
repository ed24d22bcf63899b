"""What pytest finds where deploypipe is installed: the fixture `assert_same`, and the marker `parity` on each test that
asks for it, so that `-m parity` runs those tests and `-m "not parity"` leaves them out. Nothing heavy is imported
before such a test runs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deploypipe.parity.verdict import Report

FIXTURE, MARKER = "assert_same", "parity"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: compares an artifact with the eager module (set by deploypipe).")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FIXTURE in getattr(item, "fixturenames", ()):
            item.add_marker(MARKER)


@pytest.fixture(name=FIXTURE)
def _assert_same() -> "Callable[..., Report]":
    """`deploypipe.testing.assert_same`."""
    from deploypipe import testing

    return testing.assert_same
