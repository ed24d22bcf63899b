"""The rewriting steps, in the order in which `rewrite.py` runs them.

- `plain`           annotations and `del` become plain assignments
- `matches`         `match` becomes `if` and `elif`
- `walrus`          `:=` in conditions becomes an assignment before
- `comprehensions`  list comprehensions become loops
- `mutations`       changes in place become assignments to the name that holds the object
- `jumps`           `return`, `break` and `continue` become flags and nesting
- `expressions`     truth values, comparisons and calls go through helpers
- `functional`      `if`, `while` and `for` become helper calls that get their blocks as functions
"""
