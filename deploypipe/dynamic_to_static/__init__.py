"""Python control flow on tensors, carried into the graph: source to source, then `torch.cond` and `torch.while_loop`.

A function of the author's is rewritten when it is first called during a capture, by these passes in this order:

0. `passes/walrus.py`          `:=` in conditions becomes an assignment before
1. `passes/comprehensions.py`  list comprehensions become loops
2. `passes/mutations.py`       changes in place become assignments to the name that holds the object
3. `passes/jumps.py`           `return`, `break` and `continue` become flags and nesting
4. `passes/expressions.py`     truth values, comparisons, calls go through helpers
5. `passes/functional.py`      `if`, `while`, `for` become helper calls that get their blocks as functions

The rewritten code runs under `torch.export`, and the helpers (`runtime/`) decide by the values they see: what Python
knows now stays Python; what depends on tensors or dynamic sizes is staged (`runtime/staging.py`). The same code runs
in eager to record which paths inputs take (`coverage.py`). `torchscript.py` prints a captured program as TorchScript,
`onnx.py` hands it to torch's exporter; who writes these imports them, for they bring half of torch with them.
"""

from deploypipe.dynamic_to_static.capture import Capture, capture
from deploypipe.dynamic_to_static.coverage import Coverage, find_inputs, is_dynamic, missing, possible, record_paths
from deploypipe.dynamic_to_static.sites import Site

__all__ = [
    "Capture",
    "Coverage",
    "Site",
    "capture",
    "find_inputs",
    "is_dynamic",
    "missing",
    "possible",
    "record_paths",
]
