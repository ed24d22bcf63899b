"""Wrong artifacts, made on purpose: the parity gate must reject each one, with the reason that names it.

`MUTANTS`: every mutant, by kind. `Subjects`: the honest modules that they are mutants of, by the
names in `HONEST`.
"""

from .files import FILES
from .graphs import GRAPHS
from .mutant import Mutant
from .subjects import HONEST, Subject, Subjects
from .values import VALUES

KINDS: dict[str, list[Mutant]] = VALUES | GRAPHS | FILES
MUTANTS: list[Mutant] = [mutant for mutants in KINDS.values() for mutant in mutants]

__all__ = ["HONEST", "KINDS", "MUTANTS", "Mutant", "Subject", "Subjects"]
