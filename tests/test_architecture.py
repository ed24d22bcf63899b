"""The shape of the package, read from its source without importing any of it: who imports whom, how long a module is,
what a package's docstring lists, who touches torch's private APIs, and which names are taken twice.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from support import PROJECT

PACKAGE = "deploypipe"
ROOT = PROJECT / PACKAGE

ROOMS = (
    "errors", "files", "png", "contract", "torch_compat", "flat_module", "eager", "original", "explicit", "data",
    "models",
    "evaluate", "training", "train", "compiler", "staging", "capture", "formats", "parity", "export", "precision",
    "quantize", "archives", "package", "client", "endpoints", "serve", "served", "usercode", "verify", "testing",
    "pytest_plugin", "bench", "run", "doctor", "commands", "cli", "__main__",
)  # fmt: skip
"""In the order of the flow: a room imports only rooms that stand before it."""

LONGEST = 400
"""Lines of a module, at most."""

ROLES = {"__init__", "write", "read", "inspect"}
"""Modules that sibling folders have each, because each folder plays the same part."""

UNDERSCORED_BUT_PUBLIC = {
    "torch.ops": "operators are named in every exported program; an underscore in a name is part of it",
    "torch._check": "documented as the way to state a condition to torch.export",
    "torch._assert": "documented as the assertion that survives tracing",
}

# Debts: rooms in which a rule does not hold yet. These sets only ever shrink, and an empty one goes.
OLD_ROOMS: set[str] = set()
"""They dissolve into the rooms of the design."""
CYCLIC: set[str] = set()
LONG: set[str] = set()
INCOMPLETE_DOCSTRINGS: set[str] = set()
PRIVATE_TORCH: set[str] = set()
NAMES_TWICE = {"read"}


@cache
def sources() -> Mapping[str, Path]:
    """Every module by its dotted name; a package is its `__init__.py`."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text())


def room_of(module: str) -> str:
    """The part after `deploypipe`; the package itself has none."""
    return [*module.split("."), ""][1]


def imported_names(module: str) -> Iterator[tuple[str, str]]:
    """What the module's import statements name, wherever they stand (in functions and under TYPE_CHECKING too): the
    dotted name, and the local name that it is bound to."""
    package = module if sources()[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield f"{base}.{alias.name}", alias.asname or alias.name


@cache
def graph() -> Mapping[str, frozenset[str]]:
    """Module → the modules of this package that it imports. `from room import part` is an import of `room.part` where
    that is a module, else of `room`.

    The package itself imports nothing when it is imported, because it loads its names on first use; what it imports for
    the type checker does not count. It is the only such exception.
    """
    edges: dict[str, frozenset[str]] = {PACKAGE: frozenset()}
    for module in sources():
        if module == PACKAGE:
            continue
        found = set()
        for name, _ in imported_names(module):
            target = name if name in sources() else name.rpartition(".")[0]
            if target in sources() and target != module:
                found.add(target)
        edges[module] = frozenset(found)
    return edges


def cycle_through(edges: Mapping[str, frozenset[str]], start: str) -> list[str]:
    """The shortest way from a module back to itself; empty when there is none."""
    before: dict[str, str] = {}
    ahead = [start]
    while ahead:
        module = ahead.pop(0)
        for target in sorted(edges[module]):
            if target == start:
                path = [start, module]
                while path[-1] != start:
                    path.append(before[path[-1]])
                return path[::-1] if module != start else [start, start]
            if target not in before:
                before[target] = module
                ahead.append(target)
    return []


def test_no_module_imports_itself_through_others() -> None:
    edges = {
        module: frozenset(target for target in targets if room_of(target) not in CYCLIC)
        for module, targets in graph().items()
        if room_of(module) not in CYCLIC
    }
    cycles = filter(None, (cycle_through(edges, module) for module in edges))
    distinct = {frozenset(cycle): " → ".join(cycle) for cycle in cycles}
    assert not distinct, "\n".join(distinct.values())


def test_a_cycle_is_found() -> None:
    edges = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}
    frozen = {module: frozenset(targets) for module, targets in edges.items()}
    assert cycle_through(frozen, "a") == ["a", "b", "c", "a"]
    assert cycle_through(frozen, "d") == []


def test_every_module_stands_in_a_room_of_the_design() -> None:
    assert {room_of(module) for module in sources()} - {"", *ROOMS} - OLD_ROOMS == set()


def test_a_room_imports_only_rooms_before_it() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in sorted(targets)
        if (here := room_of(module)) in ROOMS
        and (there := room_of(target)) in ROOMS
        and ROOMS.index(there) > ROOMS.index(here)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_is_too_long() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in sources().items()}
    assert not {module: n for module, n in lengths.items() if n > LONGEST and room_of(module) not in LONG}


@pytest.mark.parametrize(
    "package", [module for module, path in sources().items() if path.name == "__init__.py" and module != PACKAGE]
)
def test_a_packages_docstring_lists_its_modules(package: str) -> None:
    said = ast.get_docstring(tree_of(package)) or ""
    inside = {module.rpartition(".")[2] for module in sources() if module.rpartition(".")[0] == package}
    missing = {name for name in inside if not re.search(rf"\b{name}\b", said)}
    assert not missing or room_of(package) in INCOMPLETE_DOCSTRINGS, f"{package} does not name {sorted(missing)}"


def is_private_to_torch(name: str) -> bool:
    """A dotted name in torch with a part that begins with an underscore, or that is in torch's experimental tracer."""
    if name.partition(".")[0] != "torch" or any(name == k or name.startswith(f"{k}.") for k in UNDERSCORED_BUT_PUBLIC):
        return False
    parts = name.split(".")[1:]
    return name.startswith("torch.fx.experimental") or any(p.startswith("_") and not p.endswith("__") for p in parts)


def torch_names(module: str) -> Iterator[tuple[str, int]]:
    """Every dotted name in torch that the module spells, through an alias or not, and its line."""
    bound = {local: name for name, local in imported_names(module) if name.partition(".")[0] == "torch"}
    for local, name in bound.items():
        if local == name.partition(".")[0]:
            bound[local] = local  # `import torch.fx` binds `torch`
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Attribute):
            parts, inner = [node.attr], node.value
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in bound:
                yield ".".join([bound[inner.id], *reversed(parts)]), node.lineno


def test_only_torch_compat_touches_private_torch_apis() -> None:
    wrong = [
        f"{path.relative_to(PROJECT)}:{line}: {name}"
        for module, path in sources().items()
        if room_of(module) not in {"torch_compat", *PRIVATE_TORCH}
        for name, line in torch_names(module)
        if is_private_to_torch(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_rooms_have_a_module_of_one_name() -> None:
    """A command has the name of the verb that it calls, and the record in `contract/` of what a verb leaves may have
    the name of the verb; neither is a second meaning."""
    places = defaultdict(set)
    for module in sources():
        name = module.rpartition(".")[2]
        if name not in ROLES and room_of(module) != "commands" and module != f"{PACKAGE}.contract.run":
            places[name].add(module)
    twice = {name: sorted(found) for name, found in places.items() if len(found) > 1}
    assert not twice


def test_no_two_rooms_define_a_public_name() -> None:
    places = defaultdict(set)
    for module in sources():
        for node in tree_of(module).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                places[node.name].add(room_of(module))
    rooms = {name: found - {"commands"} for name, found in places.items() if name not in {"main", *NAMES_TWICE}}
    assert not {name: sorted(found) for name, found in rooms.items() if len(found) > 1}
