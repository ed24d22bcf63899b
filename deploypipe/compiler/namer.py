"""Names that the compiler makes, none of which the author's function knows."""

import ast


class Namer:
    """Gives names that are fresh with respect to every name in a function, in the functions inside it, and to the names
    given before. A label says how messages call a name, for names that the author has never seen."""

    def __init__(self, function: ast.FunctionDef) -> None:
        self._taken = {name for node in ast.walk(function) for name in _names_in(node)}
        self._labels: dict[str, str] = {}

    def fresh(self, wish: str, label: str = "") -> str:
        """`wish`, or `wish` with a number behind it."""
        name, number = wish, 0
        while name in self._taken:
            number += 1
            name = f"{wish}{number}"
        self._taken.add(name)
        if label:
            self._labels[name] = label
        return name

    def label(self, name: str) -> str:
        return self._labels.get(name, name)


def _names_in(node: ast.AST) -> list[str]:
    """Every identifier that a node holds itself: of names, parameters, definitions, imports, captures."""
    found: list[str] = []
    for _, value in ast.iter_fields(node):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str):
                found.append(part.partition(".")[0])
    return found
