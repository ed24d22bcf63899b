"""The rewriting steps, one a file, in the order in which `factory.py` runs them: walrus, comprehensions, mutations,
jumps, expressions, functional."""
