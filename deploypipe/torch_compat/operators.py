"""The one table of functions that draw random numbers, and of names that change a tensor in place."""

from collections.abc import Mapping
from typing import Any

RANDOM = frozenset((
    "_sample_dirichlet", "_standard_gamma", "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_",
    "gumbel_softmax", "log_normal_", "multinomial", "normal", "normal_", "normal_functional", "poisson", "rand",
    "rand_like", "randint", "randint_like", "randn", "randn_like", "random_", "randperm", "uniform", "uniform_",
))  # fmt: skip
"""Functions, methods and operators of torch that draw random numbers whatever their arguments are."""
DROPOUT = frozenset((
    "alpha_dropout", "alpha_dropout_", "dropout", "dropout1d", "dropout2d", "dropout3d", "dropout_",
    "feature_alpha_dropout", "feature_dropout",
))  # fmt: skip
"""Functions of torch that draw random numbers while training, and nothing otherwise."""


def draws_random_numbers(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether this call of the torch function `name` draws random numbers."""
    if name in DROPOUT:
        training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
        return bool(training) and kwargs.get("p", args[1] if len(args) > 1 else 0.5) != 0
    if name == "scaled_dot_product_attention":
        return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0) != 0)
    return name in RANDOM


def changes_in_place(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether this call of the torch function or tensor method `name` changes its first argument or its `out`."""
    method = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    operator = name.startswith("__i") and name.endswith("__") and name not in ("__index__", "__invert__", "__int__")
    asked = bool(kwargs.get("inplace")) or kwargs.get("out") is not None
    return method or operator or name == "__setitem__" or asked
