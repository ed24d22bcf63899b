"""The corpus: eager modules whose Python control flow depends on tensor values or sizes, by family.

Every module is written as an ordinary PyTorch user would write it, with no thought of export. A case passes when the
artifact returns what eager (in eval mode) returns on every probe. Some cases go beyond what any exporter promises
today; there, a refusal is an honest answer and a wrong output never is.

In the family files, `# fixed` marks a condition or a loop bound that is the same on every call, so that the test of
the corpus does not ask for a probe on its other side.
"""

from . import (
    arithmetic,
    branches,
    conditions,
    early_returns,
    first_twelve,
    fors,
    helpers,
    jumps,
    lists,
    modes,
    nested,
    outputs,
    realistic,
    sizes,
    state,
    whiles,
)
from ._case import CASES as _REGISTERED
from ._case import Case

FAMILIES = (
    first_twelve,
    branches,
    early_returns,
    conditions,
    whiles,
    fors,
    jumps,
    lists,
    nested,
    helpers,
    state,
    outputs,
    sizes,
    modes,
    arithmetic,
    realistic,
)
FIRST_TWELVE = (
    "branch_on_sum",
    "branch_without_else",
    "early_return",
    "submodule_routing",
    "and_or_conditions",
    "while_below_norm",
    "tensor_depth",
    "recurrent_cell",
    "break_when_large",
    "branch_inside_loop",
    "collect_steps",
    "branch_on_size",
)

CASES: dict[str, Case] = {**{name: _REGISTERED[name] for name in FIRST_TWELVE}, **_REGISTERED}
"""Every case by name, the twelve first."""

MAY_BE_REFUSED: dict[str, str] = {
    "greedy_decoding_with_cat": "the state grows by `cat` on each pass",
    "growing_sequence": "the state grows by `cat` on each pass",
    "shrinking_by_halves": "the state has another size on each pass",
}
"""Cases beyond what is promised, and why: there a refusal is an honest answer, a wrong output never is."""

__all__ = ["CASES", "FAMILIES", "FIRST_TWELVE", "MAY_BE_REFUSED", "Case"]
