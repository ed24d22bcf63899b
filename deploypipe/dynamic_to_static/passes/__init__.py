"""The rewriting steps, one a file, in the order in which `convert.py` runs them."""
