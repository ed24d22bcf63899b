"""Python source to Python source: control flow becomes calls of helpers, which decide at run time what it means.

Pure `ast`: nothing here imports torch, or anything that runs the rewritten code.

- `factory`       the rewritten form of a function, cached by its code
- `source`        from a function to its tree, and from a tree back to code
- `fence`         refuses what the passes do not support, before any of them runs
- `unsupported`   the exception for what cannot be carried
- `rewrite`       the passes in their order (`passes/`, a file each)
- `scopes`        the one analysis: names read, names bound, names live
- `namer`         names that the author's function does not know
- `build`         constructors of trees, and what the passes emit
- `plain_calls`   which calls stay as the author wrote them
- `sites`         the places in the author's source where Python decides
- `helper_names`  the helpers that rewritten code calls: the contract with the staging room
"""
