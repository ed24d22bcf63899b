"""Python source to Python source: control flow becomes calls of helpers, which decide at run time what it means.

A function of the author's is rewritten when it is first called during a capture, by these passes in this order:

0. `passes/walrus.py`          `:=` in conditions becomes an assignment before
1. `passes/comprehensions.py`  list comprehensions become loops
2. `passes/mutations.py`       changes in place become assignments to the name that holds the object
3. `passes/jumps.py`           `return`, `break` and `continue` become flags and nesting
4. `passes/expressions.py`     truth values, comparisons, calls go through helpers
5. `passes/functional.py`      `if`, `while`, `for` become helper calls that get their blocks as functions

`scopes.py` tells which names a piece of code reads and writes, and which are live after it; `build.py` makes trees;
`sites.py` numbers the places where the author's code decides; `source.py` goes from a function to its tree and back;
`factory.py` runs the passes; `unsupported.py` is the exception for what cannot be carried.

The rewritten code runs under `torch.export`, and the helpers (`staging/`) decide by the values they see.
"""
